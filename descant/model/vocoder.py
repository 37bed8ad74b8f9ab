"""BigVGAN (arXiv 2206.04658): log-amplitude mel -> wave, with alias-free snake activations.

Axes: B batch, M mel bins, D channels, T frames (of whichever rate a stage has), W samples. Inside, a sound is
(B, D, 1, T) with its channels side by side in memory (channels_last): a CPU filters each of them in half the time so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, reduce
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from descant.config import BigVGANConfig
from descant.nn.kernels import Operation, numbers
from descant.nn.prepare import Preparable

MIN_DB = -115.0  # floor of the amplitude and of the normalised range
REFERENCE_DB = 20.0  # taken off before normalising
FILTER_TAPS = 12  # of each resampling filter
CUTOFF, HALF_WIDTH = 0.25, 0.3  # of the doubled rate: half the band, with its transition
BETA_FLOOR = 1e-9  # keeps the snake's 1 / beta finite
EDGE_KERNEL = 7  # conv_pre and conv_post


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # whoever asks first: a tensor made in inference mode could never be trained through
def kaiser_taps(device: torch.device, dtype: torch.dtype) -> Tensor:
    """The low-pass filter (TAPS,) of both resamplers: a sinc under a Kaiser window, its sum 1.

    Computed, not stored: official checkpoints do not carry it. The window's beta follows Kaiser's attenuation formula.
    """
    half = FILTER_TAPS // 2
    attenuation = 2.285 * (half - 1) * math.pi * 4 * HALF_WIDTH + 7.95  # dB: 51, so the branch above 50
    beta = 0.1102 * (attenuation - 8.7)
    window = torch.kaiser_window(FILTER_TAPS, periodic=False, beta=beta, dtype=torch.float32)
    times = torch.arange(-half, half, dtype=torch.float32) + 0.5
    taps = 2 * CUTOFF * window * torch.sinc(2 * CUTOFF * times)
    return (taps / taps.sum()).to(device=device, dtype=dtype)


def filters(weight: Tensor, gain: float = 1.0) -> Tensor:
    """One filter for each channel of ``weight`` (D,): (D, 1, 1, TAPS)."""
    return (gain * kaiser_taps(weight.device, weight.dtype)).expand(len(weight), 1, 1, -1)


def hold(x: Tensor, before: int, after: int) -> Tensor:
    """x (B, D, 1, T), its edges held: (B, D, 1, before + T + after). Faster than functional.pad's "replicate"."""
    frames = x.permute(0, 2, 3, 1)  # as they lie in memory
    first, last = frames[:, :, :1].expand(-1, -1, before, -1), frames[:, :, -1:].expand(-1, -1, after, -1)
    return torch.cat((first, frames, last), dim=2).permute(0, 3, 1, 2)


def upsample(x: Tensor, taps: Tensor) -> Tensor:
    """(B, D, 1, T) -> (B, D, 1, 2T), edges held; taps: ``filters`` of gain 2."""
    pad = FILTER_TAPS // 2 - 1
    crop = 2 * pad + (FILTER_TAPS - 2) // 2
    wide = F.conv_transpose2d(hold(x, pad, pad), taps, stride=(1, 2), groups=x.shape[1])
    return wide[..., crop:-crop]


def downsample(x: Tensor, taps: Tensor) -> Tensor:
    """(B, D, 1, 2T) -> (B, D, 1, T), edges held; taps: ``filters``."""
    return F.conv2d(hold(x, FILTER_TAPS // 2 - 1, FILTER_TAPS // 2), taps, stride=(1, 2), groups=x.shape[1])


class Conv(nn.Conv1d):
    """nn.Conv1d along the last axis of x (B, D, 1, T); its length stays. ``kernel`` is odd."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, dilation: int = 1, bias: bool = True):
        super().__init__(inputs, outputs, kernel, dilation=dilation, bias=bias)
        self.reach = dilation * (kernel - 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        weight, dilation = self.weight.unsqueeze(2), (1, *self.dilation)
        return F.conv2d(x, weight, self.bias, padding=(0, self.reach), dilation=dilation)


class Up(nn.ConvTranspose1d):
    """nn.ConvTranspose1d along the last axis of x (B, D, 1, T), to (B, D', 1, T * rate)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, rate: int):
        super().__init__(inputs, outputs, kernel, stride=rate)
        self.cut = (kernel - rate) // 2

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return F.conv_transpose2d(x, self.weight.unsqueeze(2), self.bias, (1, *self.stride), (0, self.cut))


class SnakeBeta(nn.Module):
    """The weights of the snake, x + sin^2(x e^alpha) / e^beta for each channel; see ``snaked``."""

    def __init__(self, channels: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def constants(self) -> tuple[Tensor, Tensor]:
        """e^alpha and 1 / e^beta, (D, 1, 1) each."""
        return self.alpha.exp()[:, None, None], 1 / (self.beta.exp() + BETA_FLOOR)[:, None, None]


def snaked(x: Tensor, frequency: Tensor, height: Tensor) -> Tensor:
    """The snake of x (B, D, 1, T) by its constants (D, 1, 1)."""
    wave = torch.sin(x * frequency)
    return torch.addcmul(x, wave * height, wave)  # a pass less over the memory than with a square


def activated(x: Tensor, frequency: Tensor, height: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """See ``snake``."""
    return downsample(snaked(upsample(x, up), frequency, height), down)


def activation_example(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """An activation of 40 channels over 37 samples."""
    x = numbers((2, 40, 1, 37), device, dtype).contiguous(memory_format=torch.channels_last)
    frequency, height = (numbers((40, 1, 1), device, dtype, seed).exp() for seed in (1, 2))
    return x, frequency, height, filters(frequency.flatten(), 2.0), filters(frequency.flatten())


# The snake at twice the rate: x (B, D, 1, T), its constants (D, 1, 1) and the filters (D, 1, 1, TAPS) up and down, the
# same for all channels -> (B, D, 1, T)
snake = Operation(
    "snake(Tensor x, Tensor frequency, Tensor height, Tensor up, Tensor down) -> Tensor",
    activated,
    lambda x, *_: torch.empty_like(x, memory_format=torch.channels_last),
    activation_example,
)


class Activation(Preparable):
    """The snake at twice the rate, so that the harmonics it makes do not fold back.

    Prepared, it keeps what follows from its weights: the constants of the snake, and the filters of both resamplers
    laid out for every channel, which a convolution would else copy each time.
    """

    reach = FILTER_TAPS // 2 - 1  # samples of its input that one output sample reads, each side
    _kept: tuple[Tensor, ...] | None = None

    def __init__(self, channels: int):
        super().__init__()
        self.act = SnakeBeta(channels)

    def prepare(self) -> None:
        if self._kept is None:
            with torch.no_grad():
                self._kept = tuple(x.contiguous() for x in self.constants())

    def constants(self) -> tuple[Tensor, ...]:
        """e^alpha and 1 / e^beta (D, 1, 1), and the filters (D, 1, 1, TAPS) up and down."""
        return *self.act.constants(), filters(self.act.alpha, 2.0), filters(self.act.alpha)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = snake(x, *(self._kept or self.constants()))
        return out

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._kept = None  # other weights: other constants
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call, no-any-return]


class AmpBlock(nn.Module):
    """For each dilation: activation, dilated convolution, activation, convolution, residual. (B, D, 1, T) -> same."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]):
        super().__init__()
        self.convs1 = nn.ModuleList(Conv(channels, channels, kernel, dilation=d) for d in dilations)
        self.convs2 = nn.ModuleList(Conv(channels, channels, kernel) for _ in dilations)
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
        self.conv_pre = Conv(cfg.mel_dim, widths[0], EDGE_KERNEL)
        self.ups = nn.ModuleList()  # lists of one: the official keys are ups.0.0
        self.resblocks = nn.ModuleList()
        stages = zip(cfg.upsample_rates, cfg.upsample_kernel_sizes, strict=True)
        for i, (rate, kernel) in enumerate(stages):
            self.ups.append(nn.ModuleList([Up(widths[i], widths[i + 1], kernel, rate)]))
            shapes = zip(cfg.resblock_kernel_sizes, cfg.resblock_dilation_sizes, strict=True)
            self.resblocks.extend(AmpBlock(widths[i + 1], k, dilations) for k, dilations in shapes)
        self.activation_post = Activation(widths[-1])
        self.conv_post = Conv(widths[-1], 1, EDGE_KERNEL, bias=False)

    @property
    def hop(self) -> int:
        """Samples per mel frame."""
        return math.prod(self.cfg.upsample_rates)

    @property
    def context(self) -> int:
        """Mel frames that one frame's samples depend on, each side."""
        return self.reaches()[0] + EDGE_KERNEL // 2

    def reaches(self) -> list[int]:
        """The reach of each stage beside the wanted samples, in samples of its input; walked from the output back."""
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
        x = self.conv_pre(decibels(mel).unsqueeze(2).contiguous(memory_format=torch.channels_last))
        start, per_stage = 0, len(self.cfg.resblock_kernel_sizes)
        rate = 1  # samples of x for a mel frame; its first is sample ``start``
        for i, (up, reach) in enumerate(zip(self.ups, self.reaches(), strict=True)):
            x, start = crop(x, start, begin * rate - reach, end * rate + reach)
            x = up[0](x)  # type: ignore[index]
            blocks = self.resblocks[i * per_stage : (i + 1) * per_stage]
            x = reduce(torch.add, (block(x) for block in blocks)) / per_stage
            rate, start = rate * self.cfg.upsample_rates[i], start * self.cfg.upsample_rates[i]
        samples: Tensor = self.conv_post(self.activation_post(x))
        return crop(samples, start, begin * rate, end * rate)[0].clamp(-1.0, 1.0).flatten(1)


def crop(x: Tensor, start: int, begin: int, end: int) -> tuple[Tensor, int]:
    """x (..., T), whose first sample is number ``start`` -> the part of it within begin..end, and its first number."""
    begin = max(begin, start)
    return x[..., begin - start : end - start], begin


def decibels(mel: Tensor) -> Tensor:
    """Log-amplitude mel -> the vocoder's input: decibels below the reference, MIN_DB..0 dB brought to -1..1."""
    floor = math.exp(MIN_DB / 20 * math.log(10))
    db = 20 * torch.log10(mel.exp().clamp(min=floor)) - REFERENCE_DB
    return (2 * (db - MIN_DB) / -MIN_DB - 1).clamp(-1.0, 1.0)
