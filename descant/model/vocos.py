"""A small vocoder: ConvNeXt over mel frames, one spectrum per frame, inverse STFT (Vocos, arXiv 2306.00814).

Axes: B batch, M mel bins, T mel frames, D width, F spectrum bins, W samples.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from descant.config import VocosConfig
from descant.nn.linear import Linear

LOG_MAGNITUDE_MAX = math.log(100.0)  # exp of an untrained head must not overflow
VOCOS_NORM_EPS = 1e-6


class ConvNeXt(nn.Module):
    """Depthwise convolution over time, then a pointwise MLP, scaled and added. x (B, D, T) -> (B, D, T)."""

    def __init__(self, cfg: VocosConfig):
        super().__init__()
        width = cfg.hidden_size
        self.dwconv = nn.Conv1d(width, width, cfg.kernel_size, padding=cfg.kernel_size // 2, groups=width)
        self.norm = nn.LayerNorm(width, eps=VOCOS_NORM_EPS)
        self.pwconv1 = Linear(width, cfg.intermediate_size)
        self.pwconv2 = Linear(cfg.intermediate_size, width)
        self.gamma = nn.Parameter(torch.full((width,), 1.0 / cfg.num_layers))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).transpose(1, 2))
        y = self.pwconv2(F.gelu(self.pwconv1(y)))
        z: Tensor = x + (self.gamma * y).transpose(1, 2)
        return z


class Vocos(nn.Module):
    """mel (B, M, T), normalised log-mel as ``VocosConfig`` defines it -> samples (B, T * hop_length) at 24 kHz."""

    def __init__(self, cfg: VocosConfig):
        super().__init__()
        self.cfg = cfg
        self.embed = nn.Conv1d(cfg.mel_dim, cfg.hidden_size, cfg.kernel_size, padding=cfg.kernel_size // 2)
        self.norm = nn.LayerNorm(cfg.hidden_size, eps=VOCOS_NORM_EPS)
        self.blocks = nn.ModuleList(ConvNeXt(cfg) for _ in range(cfg.num_layers))
        self.final_norm = nn.LayerNorm(cfg.hidden_size, eps=VOCOS_NORM_EPS)
        self.head = Linear(cfg.hidden_size, cfg.n_fft + 2)

    @property
    def hop(self) -> int:
        """Samples per mel frame."""
        return self.cfg.hop_length

    @property
    def context(self) -> int:
        """Mel frames that one frame's samples depend on, each side."""
        return self.reaches()[0] + self.cfg.kernel_size // 2

    def reaches(self) -> list[int]:
        """Frames beside the wanted ones that each block must be given: the reach of the convolutions from it on, and
        the neighbours whose STFT windows overlap a frame's hop (2 for n_fft 1024 and hop 240)."""
        overhang = (self.cfg.n_fft - self.cfg.hop_length) / 2  # samples of a frame's window past its own hop, each side
        frames, kernel = math.ceil(overhang / self.cfg.hop_length), self.cfg.kernel_size
        return [frames + layers * (kernel // 2) for layers in range(self.cfg.num_layers, 0, -1)]

    def forward(self, mel: Tensor, begin: int = 0, end: int | None = None) -> Tensor:
        """begin, end: the frames whose samples are wanted, (B, (end - begin) * hop_length). A layer computes no more
        than they need."""
        frames, start = mel.shape[2], 0
        end = frames if end is None else end
        x = self.norm(self.embed(mel).transpose(1, 2)).transpose(1, 2)
        for block, reach in zip(self.blocks, self.reaches(), strict=True):
            low, high = max(0, begin - reach), min(frames, end + reach)
            x, start = block(x[..., low - start : high - start]), low
        log_magnitude, phase = self.head(self.final_norm(x.transpose(1, 2))).chunk(2, dim=-1)
        magnitude = log_magnitude.clamp(max=LOG_MAGNITUDE_MAX).exp()
        spectrum = torch.complex(magnitude * phase.cos(), magnitude * phase.sin())
        samples = inverse_stft(spectrum, self.cfg.n_fft, self.cfg.hop_length)
        return samples[:, (begin - start) * self.hop : (end - start) * self.hop]


def inverse_stft(spectrum: Tensor, n_fft: int, hop: int) -> Tensor:
    """spectrum (B, T, n_fft / 2 + 1) complex -> (B, T * hop): Hann-windowed overlap-add over the squared window's sum.

    Frame t is centred on the middle of samples [t * hop, (t + 1) * hop): (n_fft - hop) / 2 samples are cut each side.
    """
    window = torch.hann_window(n_fft, device=spectrum.device)
    frames = torch.fft.irfft(spectrum, n=n_fft, dim=-1) * window
    envelope = overlap_add(window.square().expand(1, frames.shape[1], -1), hop)
    return overlap_add(frames, hop) / envelope


def overlap_add(frames: Tensor, hop: int) -> Tensor:
    """frames (B, T, n_fft), ``hop`` apart -> (B, T * hop), trimmed alike on both sides.

    A frame is cut into hops and each hop added as one slice: faster than ``fold``, forward and backward.
    """
    batch, count, n_fft = frames.shape
    hops = -(-n_fft // hop)
    parts = F.pad(frames, (0, hops * hop - n_fft)).view(batch, count, hops, hop)
    total = frames.new_zeros(batch, count + hops - 1, hop)
    for i in range(hops):
        total = total + F.pad(parts[:, :, i], (0, 0, i, hops - 1 - i))
    start = (n_fft - hop) // 2
    return total.flatten(1)[:, start : start + count * hop]
