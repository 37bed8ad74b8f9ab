"""BigVGAN (arXiv 2206.04658): log-amplitude mel -> wave, with alias-free snake activations.

Axes: B batch, M mel bins, D channels, T frames (of whichever rate a stage has), W samples.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from descant.config import BigVGANConfig

MIN_DB = -115.0  # floor of the amplitude and of the normalised range
REFERENCE_DB = 20.0  # taken off before normalising
TAPS = 12  # of each resampling filter
CUTOFF, HALF_WIDTH = 0.25, 0.3  # of the doubled rate: half the band, with its transition
BETA_FLOOR = 1e-9  # keeps the snake's 1 / beta finite
EDGE_KERNEL = 7  # conv_pre and conv_post


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # whoever asks first: a tensor made in inference mode could never be trained through
def kaiser_taps(device: torch.device, dtype: torch.dtype) -> Tensor:
    """The low-pass filter (TAPS,) of both resamplers: a sinc under a Kaiser window, its sum 1.

    Computed, not stored: official checkpoints do not carry it. The window's beta follows Kaiser's attenuation formula.
    """
    half = TAPS // 2
    attenuation = 2.285 * (half - 1) * math.pi * 4 * HALF_WIDTH + 7.95  # dB: 51, so the branch above 50
    beta = 0.1102 * (attenuation - 8.7)
    window = torch.kaiser_window(TAPS, periodic=False, beta=beta, dtype=torch.float32)
    times = torch.arange(-half, half, dtype=torch.float32) + 0.5
    taps = 2 * CUTOFF * window * torch.sinc(2 * CUTOFF * times)
    return (taps / taps.sum()).to(device=device, dtype=dtype)


def filters(x: Tensor, gain: float = 1.0) -> Tensor:
    """One filter per channel of x (B, D, T): (D, 1, TAPS)."""
    return (gain * kaiser_taps(x.device, x.dtype)).expand(x.shape[1], 1, -1)


def hold(x: Tensor, before: int, after: int) -> Tensor:
    """x (..., T), its edges held: (..., before + T + after). Four times as fast as functional.pad's "replicate"."""
    edges = x[..., :1].expand(*x.shape[:-1], before), x[..., -1:].expand(*x.shape[:-1], after)
    return torch.cat((edges[0], x, edges[1]), dim=-1)


def upsample(x: Tensor) -> Tensor:
    """(B, D, T) -> (B, D, 2T), edges held."""
    pad = TAPS // 2 - 1
    crop = 2 * pad + (TAPS - 2) // 2
    return F.conv_transpose1d(hold(x, pad, pad), filters(x, 2.0), stride=2, groups=x.shape[1])[..., crop:-crop]


def downsample(x: Tensor) -> Tensor:
    """(B, D, 2T) -> (B, D, T), edges held."""
    return F.conv1d(hold(x, TAPS // 2 - 1, TAPS // 2), filters(x), stride=2, groups=x.shape[1])


class SnakeBeta(nn.Module):
    """x + sin^2(x e^alpha) / e^beta, per channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        frequency, height = self.alpha.exp()[:, None], self.beta.exp()[:, None]
        wave = torch.sin(x * frequency)
        return torch.addcmul(x, wave / (height + BETA_FLOOR), wave)  # a pass less over the memory than with a square


class Activation(nn.Module):
    """The snake at twice the rate, so that the harmonics it makes do not fold back."""

    reach = TAPS // 2 - 1  # samples of its input that one output sample reads, each side

    def __init__(self, channels: int):
        super().__init__()
        self.act = SnakeBeta(channels)

    def forward(self, x: Tensor) -> Tensor:
        return downsample(self.act(upsample(x)))


class AmpBlock(nn.Module):
    """For each dilation: activation, dilated convolution, activation, convolution, residual. (B, D, T) -> same."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]):
        super().__init__()
        self.convs1 = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, dilation=d, padding=d * (kernel - 1) // 2) for d in dilations
        )
        self.convs2 = nn.ModuleList(nn.Conv1d(channels, channels, kernel, padding=(kernel - 1) // 2) for _ in dilations)
        self.activations = nn.ModuleList(Activation(channels) for _ in range(2 * len(dilations)))

    def forward(self, x: Tensor) -> Tensor:
        pairs = zip(self.convs1, self.convs2, self.activations[::2], self.activations[1::2], strict=True)
        for conv1, conv2, act1, act2 in pairs:
            x = x + conv2(act2(conv1(act1(x))))
        return x


class BigVGAN(nn.Module):
    """mel (B, M, T), natural log of the amplitude -> samples (B, T * product of rates) in [-1, 1] at 24 kHz."""

    def __init__(self, cfg: BigVGANConfig):
        super().__init__()
        self.cfg = cfg
        widths = [cfg.upsample_initial_channel >> i for i in range(len(cfg.upsample_rates) + 1)]
        self.conv_pre = nn.Conv1d(cfg.mel_dim, widths[0], EDGE_KERNEL, padding=EDGE_KERNEL // 2)
        self.ups = nn.ModuleList()  # lists of one: the official keys are ups.0.0
        self.resblocks = nn.ModuleList()
        stages = zip(cfg.upsample_rates, cfg.upsample_kernel_sizes, strict=True)
        for i, (rate, kernel) in enumerate(stages):
            padding = (kernel - rate) // 2
            up = nn.ConvTranspose1d(widths[i], widths[i + 1], kernel, stride=rate, padding=padding)
            self.ups.append(nn.ModuleList([up]))
            shapes = zip(cfg.resblock_kernel_sizes, cfg.resblock_dilation_sizes, strict=True)
            self.resblocks.extend(AmpBlock(widths[i + 1], k, dilations) for k, dilations in shapes)
        self.activation_post = Activation(widths[-1])
        self.conv_post = nn.Conv1d(widths[-1], 1, EDGE_KERNEL, padding=EDGE_KERNEL // 2, bias=False)

    @property
    def hop(self) -> int:
        """Samples per mel frame."""
        return math.prod(self.cfg.upsample_rates)

    @property
    def context(self) -> int:
        """Mel frames that one frame's samples depend on, each side."""
        return self.reaches()[0] + EDGE_KERNEL // 2

    def reaches(self) -> list[int]:
        """How far beside the wanted samples each stage reads, in samples of its input; walked from the output back."""
        cfg = self.cfg
        amp = max(
            sum(2 * Activation.reach + (kernel // 2) * (dilation + 1) for dilation in dilations)
            for kernel, dilations in zip(cfg.resblock_kernel_sizes, cfg.resblock_dilation_sizes, strict=True)
        )
        reach, reaches = EDGE_KERNEL // 2 + Activation.reach, []
        for rate, kernel in zip(reversed(cfg.upsample_rates), reversed(cfg.upsample_kernel_sizes), strict=True):
            reach = (reach + amp + kernel - 1 - (kernel - rate) // 2) // rate
            reaches.append(reach)
        return reaches[::-1]

    def forward(self, mel: Tensor, begin: int = 0, end: int | None = None) -> Tensor:
        """begin, end: the frames whose samples are wanted, (B, (end - begin) * hop). A stage computes no more than they
        need: a frame of context is dear before the first upsampler and all but free after the second."""
        end = mel.shape[2] if end is None else end
        x, start, per_stage = self.conv_pre(decibels(mel)), 0, len(self.cfg.resblock_kernel_sizes)
        rate = 1  # samples of x for a mel frame; its first is sample ``start``
        for i, (up, reach) in enumerate(zip(self.ups, self.reaches(), strict=True)):
            x, start = crop(x, start, begin * rate - reach, end * rate + reach)
            x = up[0](x)  # type: ignore[index]
            x = sum(block(x) for block in self.resblocks[i * per_stage : (i + 1) * per_stage]) / per_stage
            rate, start = rate * self.cfg.upsample_rates[i], start * self.cfg.upsample_rates[i]
        samples: Tensor = self.conv_post(self.activation_post(x))
        return crop(samples, start, begin * rate, end * rate)[0].clamp(-1.0, 1.0).squeeze(1)


def crop(x: Tensor, start: int, begin: int, end: int) -> tuple[Tensor, int]:
    """x (B, D, T), whose first sample is number ``start`` -> the part of it within begin..end, and its first number."""
    begin = max(begin, start)
    return x[..., begin - start : end - start], begin


def decibels(mel: Tensor) -> Tensor:
    """Log-amplitude mel -> the vocoder's input: decibels below the reference, MIN_DB..0 dB brought to -1..1."""
    floor = math.exp(MIN_DB / 20 * math.log(10))
    db = 20 * torch.log10(mel.exp().clamp(min=floor)) - REFERENCE_DB
    return (2 * (db - MIN_DB) / -MIN_DB - 1).clamp(-1.0, 1.0)
