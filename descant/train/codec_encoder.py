"""The codec's analysis side: mel -> one code in 40 ms. The released system lacks this half; nano trains its own.

Axes: B batch, T mel frames, C codes, M mel bins, D width, Z width of a latent, K entries of the codebook.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class CodecEncoderConfig:
    mel_dim: int
    hidden_size: int
    intermediate_size: int
    latent_dim: int
    num_codes: int
    layers_50hz: int
    layers_25hz: int
    kernel_size: int = 7


class ConvBlock(nn.Module):
    """Depthwise convolution, then a pointwise MLP, with a residual. x (B, T, D) -> (B, T, D)."""

    def __init__(self, width: int, inner: int, kernel: int):
        super().__init__()
        self.conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x.transpose(1, 2)).transpose(1, 2)
        out: Tensor = x + self.down(F.gelu(self.up(self.norm(y))))
        return out


class Codebook(nn.Module):
    """Nearest-neighbour quantisation; the entries follow the latents by moving averages (VQ-EMA, arXiv 1711.00937)."""

    entries: Tensor  # (K, Z)
    counts: Tensor  # (K,) moving average of uses
    sums: Tensor  # (K, Z) moving average of the latents that chose each entry

    def __init__(self, num_codes: int, latent_dim: int):
        super().__init__()
        self.register_buffer("entries", torch.zeros(num_codes, latent_dim))
        self.register_buffer("counts", torch.zeros(num_codes))
        self.register_buffer("sums", torch.zeros(num_codes, latent_dim))

    def nearest(self, latents: Tensor) -> Tensor:
        """latents (..., Z) -> codes (...) int64."""
        # |z|^2 is the same for all entries
        distances: Tensor = self.entries.square().sum(1) - 2 * latents @ self.entries.T
        return distances.argmin(-1)

    def lookup(self, codes: Tensor) -> Tensor:
        """codes (...) -> entries (..., Z)."""
        return self.entries[codes]


class CodecEncoder(nn.Module):
    """mel (B, T, M) normalised, T a multiple of 4 -> latents (B, T / 4, Z), and codes after the codebook.

    A latent has zero mean and unit deviation over its Z numbers, which gives noise and distances a fixed scale.
    """

    def __init__(self, cfg: CodecEncoderConfig):
        super().__init__()
        width = cfg.hidden_size
        block = (width, cfg.intermediate_size, cfg.kernel_size)
        self.down1 = nn.Conv1d(cfg.mel_dim, width, 4, stride=2, padding=1)  # 100 -> 50 Hz
        self.blocks1 = nn.Sequential(*(ConvBlock(*block) for _ in range(cfg.layers_50hz)))
        self.down2 = nn.Conv1d(width, width, 4, stride=2, padding=1)  # 50 -> 25 Hz
        self.blocks2 = nn.Sequential(*(ConvBlock(*block) for _ in range(cfg.layers_25hz)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, cfg.latent_dim)
        self.codebook = Codebook(cfg.num_codes, cfg.latent_dim)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.blocks1(F.gelu(self.down1(mel.transpose(1, 2))).transpose(1, 2))
        x = self.blocks2(F.gelu(self.down2(x.transpose(1, 2))).transpose(1, 2))
        z: Tensor = self.head(self.norm(x))
        return F.layer_norm(z, z.shape[-1:])

    def encode(self, mel: Tensor) -> Tensor:
        """mel (B, T, M) -> codes (B, T / 4) int64."""
        return self.codebook.nearest(self(mel))
