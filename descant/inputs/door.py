"""The door: the ONE way that bytes come in. (Decoders follow.)"""

from __future__ import annotations

import math

import numpy as np
import soxr

from descant.config import InputsConfig
from descant.errors import MediaError
from descant.inputs.audio import Samples
from descant.inputs.image import Pixels
from descant.inputs.limits import Budget
from descant.types import Clip


def check_pixels(pixels: np.ndarray) -> Pixels:
    """An (H, W, 3) uint8 array as it is. Raises MediaError ("image.bad_array")."""
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or pixels.size == 0:
        raise MediaError(
            "image.bad_array",
            f"the picture is an array {pixels.shape} of {pixels.dtype}; expected (H, W, 3) of uint8. Convert it to RGB.",
        )
    return pixels


def check_samples(samples: np.ndarray, rate: int | None, target: int, budget: Budget) -> Samples:
    """Mono samples (W,) at ``rate`` Hz -> float32 at ``target`` Hz. Raises MediaError ("audio.bad_array", ...)."""
    if samples.ndim != 1 or samples.dtype.kind != "f":
        raise MediaError(
            "audio.bad_array",
            f"the sound is an array {samples.shape} of {samples.dtype}; expected (W,) of float, mono, in [-1, 1].",
        )
    if rate is None or not budget.min_rate <= rate <= budget.max_rate:
        raise MediaError(
            "audio.bad_rate",
            f"the sound has a rate of {rate} Hz; expected {budget.min_rate} to {budget.max_rate} Hz. Give Audio(..., rate=).",
        )
    if len(samples) / rate > budget.audio_s:
        raise MediaError(
            "audio.too_long",
            f"the sound lasts {len(samples) / rate:.2f} s; at most {budget.audio_s:g} s are heard. Cut it into shorter pieces.",
        )
    if not np.isfinite(samples).all():
        raise MediaError("audio.not_finite", "the sound holds NaN or infinite samples; expected numbers in [-1, 1].")
    samples = samples.astype(np.float32, copy=False)
    return samples if rate == target else soxr.resample(samples, rate, target, quality="HQ")


def check_clip(clip: Clip, *, with_sound: bool) -> Clip:
    """A decoded video as it is. Raises MediaError ("video.bad_array", "video.no_frames", "video.no_sound")."""
    frames = clip.frames
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise MediaError(
            "video.bad_array",
            f"the clip is an array {frames.shape} of {frames.dtype}; expected (T, H, W, 3) of uint8.",
        )
    if not (math.isfinite(clip.fps) and clip.fps > 0):
        raise MediaError("video.bad_rate", f"the clip has {clip.fps!r} frames a second; expected a positive number.")
    if with_sound and clip.sound is None:
        raise MediaError("video.no_sound", "the clip has no sound but use_audio was asked for. Set use_audio=False.")
    return clip


def open_image(source: object, budget: Budget) -> Pixels:
    raise NotImplementedError


def open_audio(source: object, target: int, budget: Budget) -> Samples:
    raise NotImplementedError


def open_video(source: object, inputs: InputsConfig, budget: Budget, *, with_sound: bool) -> Clip:
    raise NotImplementedError
