"""The 24 kHz mel spectrogram that the codec, the DiT and the vocoder share (training side).

Frame t is centred on sample 240 t + 120: W samples give exactly W / 240 frames, and the vocoder gives them back.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn

from descant.config import OUTPUT_RATE_HZ
from descant.inputs.audio import slaney_filters

HOP_SAMPLES = 240  # 100 mel frames a second
FFT_SAMPLES = 1024  # 43 ms
MAGNITUDE_FLOOR = 1e-5  # of the magnitude, before the logarithm


def codec_mel(samples: Tensor, bins: int, high_hz: float = 8000.0) -> Tensor:
    """Samples (B, W) in [-1, 1] at 24 kHz, W a multiple of 240 -> ln of the magnitude mel (B, W / 240, bins)."""
    side = (FFT_SAMPLES - HOP_SAMPLES) // 2
    padded = nn.functional.pad(samples[:, None], (side, side), mode="reflect")[:, 0]
    window = torch.hann_window(FFT_SAMPLES, device=samples.device)
    spectrum = torch.stft(padded, FFT_SAMPLES, HOP_SAMPLES, window=window, center=False, return_complex=True)
    magnitude = (torch.view_as_real(spectrum).square().sum(-1) + 1e-9).sqrt()
    filters = slaney_filters(OUTPUT_RATE_HZ, FFT_SAMPLES, bins, high_hz)
    return (magnitude.mT @ filters.mT.to(samples.device)).clamp_min(MAGNITUDE_FLOOR).log()


def normalised_mel(samples: Tensor, bins: int, mean: float, std: float, high_hz: float = 8000.0) -> Tensor:
    """``codec_mel`` brought to about zero mean and unit deviation by the model's constants: (B, W / 240, bins)."""
    return (codec_mel(samples, bins, high_hz) - mean) / std


def mask_mel(mel: np.ndarray, rng: Generator) -> np.ndarray:
    """SpecAugment (arXiv 1904.08779), mild: one band of bins and one stretch of time become the floor. mel (M, F)."""
    out = mel.copy()
    if rng.random() < 0.5:
        bins = int(rng.integers(0, 16))
        low = int(rng.integers(0, mel.shape[0] - bins))
        out[low : low + bins] = mel.min()
    if rng.random() < 0.5:
        frames = int(rng.integers(0, min(10, mel.shape[1] // 8) + 1))
        start = int(rng.integers(0, mel.shape[1] - frames))
        out[:, start : start + frames] = mel.min()
    return out
