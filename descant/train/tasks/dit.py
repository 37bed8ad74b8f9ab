"""The DiT's training: flow matching from noise to mel, given codes and a voice (arXiv 2210.02747, as in F5-TTS).

Axes: B batch, T mel frames, C codes, M mel bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from descant.config import DiTConfig
from descant.errors import ConfigError
from descant.model.dit import Condition, DiT
from descant.model.ode import schedule, solve
from descant.train.loop import Metrics, StageContext, Task, generator, numpy_rng
from descant.train.nano.speech_data import Corpus, Crops
from descant.train.recipe import read_dataclass
from descant.train.tasks.codec import FRAMES_PER_CODE, Codes

REF_SEED = 20  # of the voice's vector: any constant will do while there is one voice


@dataclass(frozen=True)
class DiTOptions:
    crop_frames: int  # a multiple of 24
    drop: float = 0.15  # share of examples that learn without any condition, for guidance
    full: float = 0.3  # share of steps without the block mask
    ref_frames: int = 144  # of the voice's reference mel
    evaluate_on: int = 40  # held-out sentences
    evaluate_points: int = 7  # Euler, so six evaluations of the network
    noise_scale: float = 0.5  # at sampling


def dit_config(context: StageContext) -> DiTConfig:
    token2wav = context.recipe.model.token2wav
    if token2wav is None:
        raise ConfigError(f"recipe {context.recipe.name}: the task dit needs model.token2wav")
    return token2wav.dit


def reference(corpus: Corpus, frames: int) -> Tensor:
    """The voice's reference mel (frames, M): the beginning of the first training sentence that is long enough."""
    for number in corpus.select(held_out=False):
        if corpus.utterances[number][1].spoken >= frames:
            return torch.from_numpy(corpus.mel(number, 0, frames).astype(np.float32))
    raise ConfigError(f"no sentence of the corpus has {frames} frames; lower ref_frames")


def voice_vector(width: int) -> Tensor:
    """The speaker vector (width,) of the only voice: a constant of unit length."""
    return F.normalize(torch.randn(width, generator=generator(REF_SEED)), dim=0)


class DiTTask(Task[tuple[Tensor, Tensor]]):
    """Batches are crops: mel (B, T, M) and codes (B, C). The voice's constants are saved beside the weights."""

    def __init__(self, context: StageContext):
        self.stage = context.stage
        self.cfg = dit_config(context)
        self.folder = context.folder
        self.options = read_dataclass(DiTOptions, self.stage.options, f"stages.{self.stage.name}.options")
        self.corpus = Corpus([context.need("speech")])
        self.codes = Codes(context.need("codec"), self.corpus)
        self.crops = Crops(self.corpus, self.corpus.select(held_out=False), self.options.crop_frames)
        torch.manual_seed(self.stage.seed)
        self.dit = DiT(self.cfg)
        self.modules = {"dit": self.dit}
        vector = voice_vector(self.cfg.enc_emb_dim)
        ref = reference(self.corpus, self.options.ref_frames)
        self.vectors = torch.stack([vector, torch.zeros_like(vector)])  # row 0: the voice, row 1: nobody
        self.refs = torch.stack([ref, torch.zeros_like(ref)])

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        return self._tensors(self.crops.draw(numpy_rng(self.stage.seed, step), self.stage.batch))

    def held_out_batch(self) -> tuple[Tensor, Tensor] | None:
        return self._tensors(cuts) if (cuts := self.crops.held_out(self.stage.batch)) else None

    def _tensors(self, cuts: list[tuple[int, int, int]]) -> tuple[Tensor, Tensor]:
        mel = np.stack([self.corpus.mel(*cut) for cut in cuts]).astype(np.float32)
        codes = [self.codes.of(n, start // FRAMES_PER_CODE, frames // FRAMES_PER_CODE) for n, start, frames in cuts]
        return torch.from_numpy(mel), torch.from_numpy(np.stack(codes))

    def loss(self, batch: tuple[Tensor, Tensor], rng: torch.Generator) -> tuple[Tensor, Metrics]:
        mel, codes = batch
        count = len(mel)
        nobody = (torch.rand(count, generator=rng) < self.options.drop).long()
        voices = self.dit.voice(self.vectors, self.refs)[nobody]
        condition = voices[:, None] + self.dit.code_rows(codes * (1 - nobody[:, None]))
        t = torch.randn(count, generator=rng).sigmoid()  # logit-normal: most of the work is in the middle
        noise = torch.randn(mel.shape, generator=rng)
        x = torch.lerp(noise, mel, t[:, None, None])
        full = float(torch.rand((), generator=rng)) < self.options.full
        velocity = self.dit.velocity(x, t, condition, attend="full" if full else "blocks")
        loss = F.mse_loss(velocity, mel - noise)
        return loss, {"units": mel.shape[0] * mel.shape[1] / 100}

    def sample(self, codes: Tensor, rng: torch.Generator, guidance: float) -> Tensor:
        """codes (1, C) -> mel (1, T, M) by a whole-utterance Euler solve."""
        given = Condition(codes, self.vectors[:1], self.refs[:1])
        with_codes = self.dit.condition(given)
        without = self.dit.condition(given.null())

        def velocity(t: float, x: Tensor) -> Tensor:
            if guidance == 0:
                return self.dit.velocity(x, torch.tensor([t]), with_codes)
            both = self.dit.velocity(x.repeat(2, 1, 1), torch.tensor([t, t]), torch.cat([with_codes, without]))
            return both[:1] + guidance * (both[:1] - both[1:])

        frames = codes.shape[1] * FRAMES_PER_CODE
        noise = torch.randn(1, frames, self.cfg.mel_dim, generator=rng) * self.options.noise_scale
        return solve(velocity, noise, schedule(self.options.evaluate_points, -1.0).tolist(), "euler")

    def evaluate(self) -> Metrics:
        """Mean |difference| of normalised mel between samples and the truth on held-out sentences."""
        totals = {0.0: 0.0, 0.5: 0.0}
        chosen = self.corpus.select(held_out=True)[: self.options.evaluate_on]
        for number in chosen:
            mel, codes = self._tensors([(number, 0, self.corpus.utterances[number][1].frames)])
            for guidance in totals:
                made = self.sample(codes, generator(self.stage.seed, number), guidance)
                totals[guidance] += float((made - mel).abs().mean()) / len(chosen)
        return {f"mel_l1_guidance_{guidance:g}": total for guidance, total in totals.items()}

    def finish(self) -> None:
        """Writes the voice: its vector and its reference mel."""
        save_file(
            {"vector": self.vectors[0].clone(), "ref_mel": self.refs[0].clone()}, self.folder / "voice.safetensors"
        )
