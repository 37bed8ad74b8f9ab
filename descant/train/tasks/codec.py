"""The codec: an encoder that turns 40 ms of speech into one of 1,024 codes, trained through phones and mel.

The codes must carry *what is said* before how it sounds, because the Talker predicts them from text. So the loss is the
phone of each frame (free labels from the teacher voice) plus the mel. It starts without a quantiser (noise on the
latents takes its place), then k-means gives the codebook its first entries, then they follow by moving averages.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from descant.train.codec_encoder import Codebook, CodecEncoder, CodecEncoderConfig, ConvBlock
from descant.train.loop import Metrics, StageContext, Task, generator, load_module, numpy_rng
from descant.train.nano.speech_data import Corpus, Crops
from descant.train.recipe import read_dataclass

FRAMES_PER_CODE = 4  # 100 mel frames a second, 25 codes a second


@dataclass(frozen=True)
class CodecOptions:
    encoder: CodecEncoderConfig
    crop_frames: int  # a multiple of 24
    warm_steps: int  # without the quantiser
    kmeans_latents: int = 24000
    kmeans_rounds: int = 12
    noise: float = 0.35  # on the latents, in their deviations, before the quantiser comes
    phone_weight: float = 1.0
    commit_weight: float = 0.25
    decay: float = 0.99  # of the codebook's moving averages
    revive_below: float = 0.05  # moving count under which an entry is dead
    revive_every: int = 20  # steps


class CodecDecoder(nn.Module):
    """Latents back to phones and mel: the teacher of the encoder and the yardstick of the DiT; never shipped."""

    def __init__(self, cfg: CodecEncoderConfig, phones: int):
        super().__init__()
        width = cfg.hidden_size
        block = (cfg.hidden_size, cfg.intermediate_size, cfg.kernel_size)
        self.rise = nn.Linear(cfg.latent_dim, width)
        self.blocks1 = nn.Sequential(ConvBlock(*block), ConvBlock(*block))
        self.phones = nn.Linear(width, FRAMES_PER_CODE * phones)
        self.spread = nn.Linear(width, FRAMES_PER_CODE * width)
        self.blocks2 = nn.Sequential(ConvBlock(*block), ConvBlock(*block))
        self.mel = nn.Linear(width, cfg.mel_dim)

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """latents (B, C, Z) -> phone logits (B, 4 C, P), mel (B, 4 C, M)."""
        x = self.blocks1(self.rise(latents))
        batch = x.shape[0]
        frames = x.shape[1] * FRAMES_PER_CODE
        wide = F.gelu(self.spread(x)).view(batch, frames, -1)
        return self.phones(x).view(batch, frames, -1), self.mel(self.blocks2(wide))


def kmeans(points: Tensor, count: int, rounds: int, rng: torch.Generator) -> Tensor:
    """Lloyd's algorithm: points (N, Z) -> centres (count, Z). An empty centre moves to a random point."""
    book = Codebook(count, points.shape[1])
    book.entries.copy_(points[torch.randperm(len(points), generator=rng)[:count]])
    for _ in range(rounds):
        near = book.nearest(points)
        sums = torch.zeros_like(book.entries).index_add_(0, near, points)
        sizes = torch.bincount(near, minlength=count)
        fallback = points[torch.randint(len(points), (count,), generator=rng)]
        book.entries.copy_(torch.where(sizes[:, None] > 0, sums / sizes.clamp_min(1)[:, None], fallback))
    return book.entries.clone()


@torch.no_grad()
def follow(book: Codebook, latents: Tensor, codes: Tensor, decay: float) -> None:
    """One step of the moving averages: latents (N, Z) and the entries (N,) they chose."""
    uses = torch.bincount(codes, minlength=len(book.counts)).to(book.counts.dtype)
    book.counts.lerp_(uses, 1 - decay)
    book.sums.lerp_(torch.zeros_like(book.sums).index_add_(0, codes, latents), 1 - decay)
    alive = book.counts > 1e-3
    book.entries[alive] = book.sums[alive] / book.counts[alive, None]


@torch.no_grad()
def revive(book: Codebook, latents: Tensor, below: float, rng: torch.Generator) -> int:
    """Moves entries that hardly anything chooses onto random latents (N, Z). Returns how many were moved."""
    dead = (book.counts < below).nonzero()[:, 0]
    chosen = latents[torch.randint(len(latents), (len(dead),), generator=rng)]
    typical = book.counts.mean()
    book.entries[dead] = chosen
    book.sums[dead] = chosen * typical
    book.counts[dead] = typical
    return len(dead)


class CodecTask(Task[tuple[Tensor, Tensor]]):
    """Batches are crops: mel (B, T, M) and phone labels (B, T)."""

    def __init__(self, context: StageContext):
        stage = context.stage
        self.stage = stage
        self.folder = context.folder
        self.options = options = read_dataclass(CodecOptions, stage.options, f"stages.{stage.name}.options")
        self.corpus = Corpus([context.need("speech")])
        self.crops = Crops(self.corpus, self.corpus.select(held_out=False), options.crop_frames)
        torch.manual_seed(stage.seed)
        self.encoder = CodecEncoder(options.encoder)
        self.decoder = CodecDecoder(options.encoder, len(self.corpus.phone_names))
        self.modules = {"encoder": self.encoder, "decoder": self.decoder}
        self.step = 0

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        rng = numpy_rng(self.stage.seed, step)
        return self._tensors(self.crops.draw(rng, self.stage.batch))

    def held_out_batch(self) -> tuple[Tensor, Tensor] | None:
        return self._tensors(cuts) if (cuts := self.crops.held_out(self.stage.batch)) else None

    def _tensors(self, cuts: list[tuple[int, int, int]]) -> tuple[Tensor, Tensor]:
        mel = np.stack([self.corpus.mel(*cut) for cut in cuts]).astype(np.float32)
        phones = np.stack([self.corpus.phones(*cut) for cut in cuts]).astype(np.int64)
        return torch.from_numpy(mel), torch.from_numpy(phones)

    def prepare(self, step: int) -> None:
        self.step = step
        options = self.options
        book = self.encoder.codebook
        if step != options.warm_steps:
            return
        rng = generator(self.stage.seed, step, 1)
        latents: list[Tensor] = []
        with torch.no_grad():
            for extra in range(self.stage.steps, 2**31):  # steps never trained on: other crops
                if sum(map(len, latents)) >= options.kmeans_latents:
                    break
                latents.append(self.encoder(self.batch(extra)[0]).flatten(0, 1))
        points = torch.cat(latents)
        book.entries.copy_(kmeans(points, options.encoder.num_codes, options.kmeans_rounds, rng))
        per_step = self.stage.batch * options.crop_frames / FRAMES_PER_CODE
        book.counts.copy_(torch.bincount(book.nearest(points), minlength=len(book.counts)) * per_step / len(points))
        book.sums.copy_(book.entries * book.counts[:, None])

    def quantise(self, latents: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """latents (B, C, Z) -> what the decoder reads, and the commitment loss; moves the codebook."""
        options = self.options
        book = self.encoder.codebook
        if self.step < options.warm_steps:
            noise = torch.randn(latents.shape, generator=rng)
            return latents + options.noise * noise, latents.new_zeros(())
        flat = latents.detach().flatten(0, 1)
        codes = book.nearest(flat)
        chosen = book.lookup(codes).view_as(latents)
        if torch.is_grad_enabled():  # held-out examples do not move it
            follow(book, flat, codes, options.decay)
            if self.step % options.revive_every == 0:
                revive(book, flat, options.revive_below, rng)
        return latents + (chosen - latents).detach(), F.mse_loss(latents, chosen)

    def loss(self, batch: tuple[Tensor, Tensor], rng: torch.Generator) -> tuple[Tensor, Metrics]:
        mel, phones = batch
        read, commit = self.quantise(self.encoder(mel), rng)
        logits, guess = self.decoder(read)
        phone_loss = F.cross_entropy(logits.flatten(0, 1), phones.flatten())
        mel_loss = F.l1_loss(guess, mel)
        total = mel_loss + self.options.phone_weight * phone_loss + self.options.commit_weight * commit
        accuracy = float((logits.argmax(-1) == phones).float().mean())
        metrics = {"mel": float(mel_loss.detach()), "phone": float(phone_loss.detach()), "accuracy": accuracy}
        return total, {**metrics, "commit": float(commit.detach()), "units": phones.numel() / 100}

    def evaluate(self) -> Metrics:
        """Through the codes, on held-out sentences: phone accuracy and mel L1; how evenly codes are used."""
        right = 0.0
        wrong = 0.0
        frames = 0
        uses = torch.zeros(self.options.encoder.num_codes)
        for number in self.corpus.select(held_out=True):
            mel, phones = self._tensors([(number, 0, self.corpus.utterances[number][1].frames)])
            codes = self.encoder.encode(mel)
            logits, guess = self.decoder(self.encoder.codebook.lookup(codes))
            right += float((logits.argmax(-1) == phones).sum())
            wrong += float((guess - mel).abs().mean(-1).sum())
            frames += phones.numel()
            uses += torch.bincount(codes.flatten(), minlength=len(uses))
        share = uses / uses.sum()
        perplexity = float(torch.exp(-(share * share.clamp_min(1e-9).log()).sum()))
        used = float((uses > 0).sum())
        return {"accuracy": right / frames, "mel": wrong / frames, "perplexity": perplexity, "used": used}

    def finish(self) -> None:
        """Encodes the whole corpus: ``codes.u16``, one code for every four frames of the corpus, in its order."""
        rows = [
            self.encoder.encode(self._tensors([(i, 0, u.frames)])[0])[0]
            for i, (_, u) in enumerate(self.corpus.utterances)
        ]
        torch.cat(rows).numpy().astype("<u2").tofile(self.folder / "codes.u16")


class Codes:
    """The codes of a corpus, as the codec stage wrote them."""

    def __init__(self, folder: Path, corpus: Corpus):
        self.all = np.memmap(folder / "codes.u16", dtype="<u2", mode="r")
        lengths = [u.frames // FRAMES_PER_CODE for _, u in corpus.utterances]
        self.starts = np.concatenate([[0], np.cumsum(lengths)])
        self.corpus = corpus

    def of(self, number: int, start: int = 0, count: int | None = None) -> np.ndarray:
        """Codes [start, start + count) of an utterance; without ``count`` those that were spoken, padding left out."""
        if count is None:
            count = -(-self.corpus.utterances[number][1].spoken // FRAMES_PER_CODE) - start
        begin = int(self.starts[number]) + start
        return np.asarray(self.all[begin : begin + count], dtype=np.int64)


def load_codec(context: StageContext) -> tuple[CodecEncoder, CodecDecoder]:
    """The trained codec of the needed codec stage, frozen."""
    folder = context.need("codec")
    options = read_dataclass(CodecOptions, context.recipe.stage(folder.name).options, f"stages.{folder.name}.options")
    speech = next(n for n in context.recipe.stage(folder.name).needs if context.recipe.stage(n).task == "speech")
    phones = json.loads((context.runs / speech / "provenance.json").read_text())["phones"]
    encoder = CodecEncoder(options.encoder)
    decoder = CodecDecoder(options.encoder, len(phones))
    encoder.load_state_dict(load_module(folder, "encoder"))
    decoder.load_state_dict(load_module(folder, "decoder"))
    return encoder.requires_grad_(False).eval(), decoder.requires_grad_(False).eval()
