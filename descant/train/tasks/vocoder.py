"""The vocoder's training: mel -> wave by spectral losses alone (no adversary: ten times cheaper, and enough here).

Axes: B batch, W samples, T mel frames, M mel bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from descant.config import VocosConfig
from descant.errors import ConfigError
from descant.model.vocos import Vocos
from descant.train.loop import Metrics, StageContext, Task, numpy_rng
from descant.train.mel import HOP_SAMPLES, normalised_mel
from descant.train.nano.speech_data import Corpus, Crops
from descant.train.recipe import read_dataclass

RESOLUTIONS = ((512, 120), (768, 180), (1280, 300), (2048, 480))  # (n_fft, hop) in samples at 24 kHz
RATE_FLOOR = 2e-3  # of a magnitude before its logarithm: about -80 dB of a full-scale tone, well above int16 noise


@dataclass(frozen=True)
class VocoderOptions:
    crop_frames: int  # a multiple of 24
    resolutions_a_step: int = 2
    mel_weight: float = 1.35  # on the normalised mel: 0.5 a unit of log amplitude at a deviation of 2.7
    evaluate_on: int = 40  # held-out sentences


def magnitudes(samples: Tensor, n_fft: int, hop: int) -> Tensor:
    """|STFT| of samples (B, W), with a floor that keeps its gradient finite: (B, n_fft / 2 + 1, frames)."""
    spectrum = torch.stft(samples, n_fft, hop, window=torch.hann_window(n_fft), center=False, return_complex=True)
    power: Tensor = torch.view_as_real(spectrum).square().sum(-1)
    return torch.sqrt(power + 1e-10)


def spectral_loss(guess: Tensor, target: Tensor, n_fft: int, hop: int) -> Tensor:
    """Spectral convergence plus log-magnitude L1 (arXiv 1910.11480) at one resolution; both (B, W)."""
    made = magnitudes(guess, n_fft, hop)
    real = magnitudes(target, n_fft, hop)
    convergence = (made - real).norm(dim=(1, 2)) / real.norm(dim=(1, 2)).clamp_min(0.1)
    loss: Tensor = convergence.mean() + F.l1_loss(made.clamp_min(RATE_FLOOR).log(), real.clamp_min(RATE_FLOOR).log())
    return loss


def vocoder_config(context: StageContext) -> VocosConfig:
    """The Vocos of the recipe; the official BigVGAN has no trainer here."""
    token2wav = context.recipe.model.token2wav
    if token2wav is None or not isinstance(token2wav.vocoder, VocosConfig):
        raise ConfigError(
            f"recipe {context.recipe.name}: the task vocoder needs a model.token2wav.vocoder of Vocos shape"
        )
    return token2wav.vocoder


class VocoderTask(Task[tuple[Tensor, Tensor]]):
    """Batches are crops: mel (B, T, M) normalised, and samples (B, 240 T)."""

    def __init__(self, context: StageContext):
        self.stage = context.stage
        self.cfg = vocoder_config(context)
        self.options = read_dataclass(VocoderOptions, self.stage.options, f"stages.{self.stage.name}.options")
        self.corpus = Corpus([context.need("speech")])
        self.crops = Crops(self.corpus, self.corpus.select(held_out=False), self.options.crop_frames)
        torch.manual_seed(self.stage.seed)
        self.vocoder = Vocos(self.cfg)
        self.modules = {"vocoder": self.vocoder}

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        return self._tensors(self.crops.draw(numpy_rng(self.stage.seed, step), self.stage.batch))

    def held_out_batch(self) -> tuple[Tensor, Tensor] | None:
        return self._tensors(cuts) if (cuts := self.crops.held_out(self.stage.batch)) else None

    def _tensors(self, cuts: list[tuple[int, int, int]]) -> tuple[Tensor, Tensor]:
        mel = np.stack([self.corpus.mel(*cut) for cut in cuts]).astype(np.float32)
        audio = np.stack([self.corpus.audio(*cut).reshape(-1) for cut in cuts]).astype(np.float32) / 32768
        return torch.from_numpy(mel), torch.from_numpy(audio)

    def mel_of(self, samples: Tensor) -> Tensor:
        return normalised_mel(samples, self.cfg.mel_dim, self.cfg.mel_mean, self.cfg.mel_std)

    def loss(self, batch: tuple[Tensor, Tensor], rng: torch.Generator) -> tuple[Tensor, Metrics]:
        mel, audio = batch
        made = self.vocoder(mel.transpose(1, 2))
        mel_loss = F.l1_loss(self.mel_of(made), mel)
        chosen = torch.randperm(len(RESOLUTIONS), generator=rng)[: self.options.resolutions_a_step]
        spectral = torch.stack([spectral_loss(made, audio, *RESOLUTIONS[int(i)]) for i in chosen]).mean()
        metrics = {"mel": float(mel_loss.detach()) * self.cfg.mel_std, "spectral": float(spectral.detach())}
        return spectral + self.options.mel_weight * mel_loss, {**metrics, "units": audio.numel() / HOP_SAMPLES / 100}

    def evaluate(self) -> Metrics:
        """Mean |difference| of log amplitude mel, natural log, on held-out sentences."""
        differences = []
        for number in self.corpus.select(held_out=True)[: self.options.evaluate_on]:
            mel, _ = self._tensors([(number, 0, self.corpus.utterances[number][1].frames)])
            differences.append(float((self.mel_of(self.vocoder(mel.transpose(1, 2))) - mel).abs().mean()))
        return {"log_mel_l1": self.cfg.mel_std * sum(differences) / len(differences)}
