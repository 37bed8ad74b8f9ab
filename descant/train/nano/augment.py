"""Cheap distortions that make synthetic voices less alike: applied anew each time a clip is drawn."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

CLIP_RATE_HZ = 16000  # Hz


def speed(samples: np.ndarray, factor: float) -> np.ndarray:
    """Play faster (> 1) or slower: pitch, formants and tempo move together."""
    places = np.arange(0, len(samples) - 1, factor)
    played: np.ndarray = np.interp(places, np.arange(len(samples)), samples).astype(np.float32)
    return played


def band_limit(samples: np.ndarray, low_hz: float, high_hz: float) -> np.ndarray:
    """Keep the band that a telephone or a small loudspeaker lets through."""
    spectrum = np.fft.rfft(samples)
    hertz = np.fft.rfftfreq(len(samples), 1 / CLIP_RATE_HZ)
    spectrum[(hertz < low_hz) | (hertz > high_hz)] *= 0.03
    heard: np.ndarray = np.fft.irfft(spectrum, len(samples)).astype(np.float32)
    return heard


def noisy(samples: np.ndarray, snr_db: float, rng: Generator) -> np.ndarray:
    """Add noise, white or falling 3 dB an octave, at this distance below the speech."""
    noise = rng.standard_normal(len(samples), dtype=np.float32)
    if rng.random() < 0.5:
        spectrum = np.fft.rfft(noise)
        spectrum /= np.sqrt(np.arange(len(spectrum)) + 8.0)
        noise = np.fft.irfft(spectrum, len(samples)).astype(np.float32)
    power = float(np.mean(samples**2)) + 1e-9
    scale = np.sqrt(power / 10 ** (snr_db / 10)) / (float(noise.std()) + 1e-9)
    mixed: np.ndarray = samples + np.float32(scale) * noise
    return mixed


def distort(samples: np.ndarray, rng: Generator) -> np.ndarray:
    """A clip (W,) as another room, microphone and mood would give it; a little longer or shorter."""
    out = speed(samples, rng.uniform(0.9, 1.1))
    if rng.random() < 0.25:
        out = band_limit(out, rng.uniform(50, 250), rng.uniform(3000, 7000))
    out = out / (float(np.abs(out).max()) + 1e-6) * rng.uniform(0.1, 0.95)
    pad = (int(rng.uniform(0, 0.15) * CLIP_RATE_HZ), int(rng.uniform(0, 0.15) * CLIP_RATE_HZ))
    out = np.pad(out, pad)
    if rng.random() < 0.6:
        out = noisy(out, rng.uniform(5, 30), rng)
    clip: np.ndarray = np.clip(out, -1.0, 1.0).astype(np.float32)
    return clip
