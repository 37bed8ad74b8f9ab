"""The 24 kHz mel spectrogram that the codec, the DiT and the vocoder share (training side).

Frame t is centred on sample 240 t + 120: W samples give exactly W / 240 frames, and the vocoder gives them back.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

RATE = 24000  # Hz
HOP = 240  # samples: 100 mel frames a second
N_FFT = 1024  # samples: 43 ms
FLOOR = 1e-5  # of the magnitude, before the logarithm


@functools.cache
def mel_filters(bins: int, low_hz: float, high_hz: float) -> Tensor:
    """Triangular filters on the Slaney mel scale with area normalisation: (N_FFT / 2 + 1, bins) float32.

    Slaney scale (Auditory Toolbox, 1998): linear below 1 kHz (3 mel per 200 Hz), then 27 steps per factor of 6.4.
    """
    log_step = torch.tensor(6.4).log() / 27

    def to_mel(hz: Tensor) -> Tensor:
        return torch.where(hz < 1000, hz * 3 / 200, 15 + (hz.clamp_min(1.0) / 1000).log() / log_step)

    def to_hz(mel: Tensor) -> Tensor:
        return torch.where(mel < 15, mel * 200 / 3, 1000 * ((mel - 15) * log_step).exp())

    ends = to_mel(torch.tensor([low_hz, high_hz], dtype=torch.float64))
    edges = to_hz(torch.linspace(float(ends[0]), float(ends[1]), bins + 2, dtype=torch.float64))
    hz = torch.linspace(0, RATE / 2, N_FFT // 2 + 1, dtype=torch.float64)[:, None]
    rising = (hz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hz) / (edges[2:] - edges[1:-1])
    triangles = torch.minimum(rising, falling).clamp_min(0)
    return (triangles * 2 / (edges[2:] - edges[:-2])).float()


def log_mel(samples: Tensor, bins: int, high_hz: float = 8000.0) -> Tensor:
    """Samples (B, W) in [-1, 1] at 24 kHz, W a multiple of 240 -> ln of the magnitude mel (B, W / 240, bins)."""
    side = (N_FFT - HOP) // 2
    padded = nn.functional.pad(samples[:, None], (side, side), mode="reflect")[:, 0]
    window = torch.hann_window(N_FFT, device=samples.device)
    spectrum = torch.stft(padded, N_FFT, HOP, window=window, center=False, return_complex=True)
    magnitude = (torch.view_as_real(spectrum).square().sum(-1) + 1e-9).sqrt()
    return (magnitude.mT @ mel_filters(bins, 0.0, high_hz).to(samples.device)).clamp_min(FLOOR).log()


def normalised_mel(samples: Tensor, bins: int, mean: float, std: float, high_hz: float = 8000.0) -> Tensor:
    """``log_mel`` brought to about zero mean and unit deviation by the model's constants: (B, W / 240, bins)."""
    return (log_mel(samples, bins, high_hz) - mean) / std
