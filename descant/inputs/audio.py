"""Sound: 16 kHz mono samples -> the log-mel spectrogram that the audio encoder reads.

Axes: W samples, M mel bins, F mel frames (10 ms each).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from descant.config import InputsConfig, audio_tokens
from descant.errors import MediaError
from descant.inputs.audio_file import Samples

# Frames are computed so many at a time, the last group padded: matrix products of one shape only. Else the shape of a
# product would show in the last bit of its numbers, and a clip in pieces (live.py) would not equal the clip as a whole.
GROUP_FRAMES = 200  # mel frames: 2 s


def log_mel(samples: Samples | Tensor, inputs: InputsConfig) -> Tensor:
    """Log-mel features (M, F) float32 of mono samples (W,) at ``inputs.sampling_rate``; F = ceil(W / hop).

    The reference pads every clip with silence to 300 s. Of that padding only three things reach the valid frames: the
    reflection at the start, silence (not reflection) at the end, and the floor, which hangs on the loudest bin of ALL
    frames; the two frames after the last valid one still hold signal. So two extra frames give the same numbers.
    Source: Whisper's front end (arXiv 2212.04356, section 2.2). Raises MediaError over ``max_audio_s`` or when empty.
    """
    wave = torch.as_tensor(samples, dtype=torch.float32)
    count = wave.numel()
    check_length(count, inputs)
    log = log_spectra(pad_start(pad_end(wave, count, inputs), inputs), inputs)
    return floored(log[:, : mel_frames(count, inputs)], log.max())


def pad_start(wave: Tensor, inputs: InputsConfig) -> Tensor:
    """The start of a clip, at least n_fft / 2 + 1 samples (W,), behind its own reflection of n_fft / 2 samples."""
    return torch.cat([wave[1 : inputs.n_fft // 2 + 1].flip(0), wave])


def pad_end(wave: Tensor, samples: int, inputs: InputsConfig) -> Tensor:
    """The end (W,) of a clip of ``samples`` in all, longer by what its last frames and the two after them still see."""
    hop, half = inputs.hop_length, inputs.n_fft // 2
    limit = round(inputs.max_audio_s * inputs.sampling_rate)
    computed = min(mel_frames(samples, inputs) + inputs.n_fft // hop, limit // hop)
    needed = (computed - 1) * hop + half  # one past the last sample that the last computed frame sees
    wave = torch.nn.functional.pad(wave, (0, max(0, min(needed, limit) - samples)))
    right = max(0, needed - limit)  # only at the very end of the 300 s does the reference reflect
    return torch.nn.functional.pad(wave[None], (0, right), mode="reflect")[0]


def log_spectra(wave: Tensor, inputs: InputsConfig) -> Tensor:
    """log10 mel power (M, F), without the floor, of padded samples (W,): frame f sees wave[f * hop : f * hop + n_fft].

    Only whole frames: F = (W - n_fft) // hop + 1. The same samples give the same bits wherever the wave was cut, so
    long as it starts at a multiple of GROUP frames of the clip.
    """
    hop, n_fft = inputs.hop_length, inputs.n_fft
    frames = max(0, (wave.numel() - n_fft) // hop + 1)
    groups = [_log_group(wave[start * hop :], inputs) for start in range(0, frames, GROUP_FRAMES)]
    return torch.cat(groups, dim=1)[:, :frames] if groups else wave.new_empty(inputs.feature_size, 0)


def _log_group(wave: Tensor, inputs: InputsConfig) -> Tensor:
    """The first GROUP frames of padded samples, with silence after their end: (M, GROUP)."""
    whole = (GROUP_FRAMES - 1) * inputs.hop_length + inputs.n_fft
    wave = torch.nn.functional.pad(wave[:whole], (0, max(0, whole - wave.numel())))
    window = _hann(inputs.n_fft)
    spectrum = torch.stft(wave, inputs.n_fft, inputs.hop_length, window=window, center=False, return_complex=True)
    power = torch.view_as_real(spectrum).square().sum(-1)
    mel = slaney_filters(inputs.sampling_rate, inputs.n_fft, inputs.feature_size) @ power
    return mel.clamp_(min=1e-10).log10_()


def floored(log: Tensor, loudest: Tensor) -> Tensor:
    """Features of log10 mel power (M, F): nothing lies over 80 dB below the ``loudest`` bin () of the whole clip."""
    return (torch.maximum(log, loudest - 8.0) + 4.0) / 4.0


def mel_frames(samples: int, inputs: InputsConfig) -> int:
    """F, the valid mel frames of a clip: one per started hop of 10 ms."""
    return -(-samples // inputs.hop_length)


def check_length(samples: int, inputs: InputsConfig) -> None:
    """Refuse a clip of so many samples: MediaError "audio.too_long", "audio.empty" or "audio.too_short"."""
    seconds = samples / inputs.sampling_rate
    if seconds > inputs.max_audio_s:
        raise MediaError(
            "audio.too_long",
            f"the sound lasts {seconds:.2f} s; at most {inputs.max_audio_s:g} s are heard. Cut it into shorter pieces.",
        )
    if samples == 0:
        raise MediaError("audio.empty", "the sound has no samples; expected at least 0.03 s. Record it again.")
    if audio_tokens(mel_frames(samples, inputs)) < 1:
        raise MediaError(
            "audio.too_short",
            f"the sound lasts {seconds * 1000:.1f} ms; at least 3 mel frames (over 20 ms) are needed. Append silence.",
        )


@lru_cache(maxsize=4)
def _hann(n_fft: int) -> Tensor:
    return torch.hann_window(n_fft)  # periodic


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # a training step may be the next to ask
def slaney_filters(rate: int, n_fft: int, bins: int, high_hz: float = 8000.0) -> Tensor:
    """(M, n_fft / 2 + 1) triangles on Slaney's mel scale from 0 to ``high_hz``, each of unit area (Slaney norm)."""
    edges = _slaney_to_hz(np.linspace(0.0, _slaney_to_mel(high_hz), bins + 2))
    freqs = np.linspace(0.0, rate / 2, n_fft // 2 + 1)
    widths = np.diff(edges)
    slopes = edges[:, None] - freqs[None, :]
    rising = -slopes[:-2] / widths[:-1, None]
    falling = slopes[2:] / widths[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    triangles *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return torch.from_numpy(triangles.astype(np.float32))


# Slaney's mel scale (Auditory Toolbox, 1998): linear below 1 kHz at 200/3 Hz per mel, then 27 mels per factor of 6.4.
_HZ_PER_MEL = 200.0 / 3.0
_KNEE_HZ = 1000.0
_KNEE_MEL = _KNEE_HZ / _HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27.0


def _slaney_to_mel(hz: float) -> float:
    return float(hz / _HZ_PER_MEL if hz < _KNEE_HZ else _KNEE_MEL + np.log(hz / _KNEE_HZ) / _LOG_STEP)


def _slaney_to_hz(mels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    above = _KNEE_HZ * np.exp(_LOG_STEP * (np.maximum(mels, _KNEE_MEL) - _KNEE_MEL))
    return np.where(mels < _KNEE_MEL, mels * _HZ_PER_MEL, above)
