"""Sound files: any container that is admitted -> mono samples. No tensor library: this runs in the decoder process.

Axes: C channels, W samples.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import soxr
from av.audio.frame import AudioFrame

from descant.checks import is_finite_number
from descant.errors import MediaError, shortened
from descant.inputs.container import decoded_frames, opened, sound_stream
from descant.inputs.wav import read_wav
from descant.types import Budget

Samples = npt.NDArray[np.float32]


def decode_wav(data: bytes, rate: int, budget: Budget) -> Samples | None:
    """Bytes of a WAV file of plain PCM -> mono (W,) float32 at ``rate`` Hz; None for other codings."""
    wav = read_wav(data)
    if wav is None:
        return None
    check_sound(wav.channels, wav.count, wav.rate, budget)  # before the bytes become numbers
    return to_mono(wav.blocks(), wav.rate, rate, budget)


def decode_audio(data: bytes | memoryview, form: str, rate: int, budget: Budget) -> Samples:
    """Bytes of a file of format ``form`` (limits.AUDIO_FORMATS) -> mono (W,) float32 at ``rate`` Hz."""
    with opened(data, form, "audio") as container:
        stream = sound_stream(container)
        if stream is None:
            raise MediaError("audio.no_stream", "the file holds no sound; expected a file with an audio track.")
        collector = Collector(budget)
        for frame in decoded_frames(container, [stream], form, "audio"):
            collector.add(frame)
    return collector.samples(rate)


class Collector:
    """Decoded audio frames of one stream, under a budget. ``start``: when the first one sounds, in s, if stated."""

    def __init__(self, budget: Budget):
        self._budget = budget
        self._blocks: list[Samples] = []
        self._rate = 0  # Hz
        self.count = 0  # samples a channel
        self.start: float | None = None

    def add(self, frame: object) -> None:
        """Keep one frame. Raises MediaError on a bad or changing rate, too many channels, or too much of it."""
        if not isinstance(frame, AudioFrame):
            return
        if self._rate not in (0, frame.sample_rate):
            raise MediaError(
                "audio.decode_failed",
                f"the sample rate changes from {self._rate} to {frame.sample_rate} Hz midway. Convert it.",
            )
        if not self._blocks:
            self.start = frame.time
        self._rate = frame.sample_rate
        self.count += frame.samples
        block = _to_float(frame)
        check_sound(block.shape[0], self.count, self._rate, self._budget)
        self._blocks.append(block)

    def samples(self, target: int) -> Samples:
        """All of it as mono (W,) at ``target`` Hz."""
        return to_mono(self._blocks, self._rate, target, self._budget)


def to_mono(blocks: Iterable[Samples], rate: int, target: int, budget: Budget) -> Samples:
    """Blocks (C, W) at ``rate`` Hz -> the mean of the channels (W',) float32 at ``target`` Hz (soxr, HQ)."""
    parts = [np.zeros(0, np.float32), *(block.mean(axis=0, dtype=np.float32) for block in blocks)]
    mono = np.concatenate(parts)
    del parts
    if not len(mono):
        raise MediaError("audio.empty", "the sound has no samples; expected at least 0.03 s. Record it again.")
    check_sound(1, len(mono), rate, budget)
    if not np.isfinite(mono).all():
        raise MediaError("audio.not_finite", "the sound holds NaN or infinite samples; expected numbers in [-1, 1].")
    if rate == target:
        return mono
    resampled: Samples = soxr.resample(mono, rate, target, quality="HQ")
    return resampled[: round(budget.audio_s * target)]  # never a cut of sound: at most one sample of rounding


def check_sound(channels: int, count: int, rate: int, budget: Budget) -> None:
    """Refuse ``count`` samples a channel at ``rate`` Hz: "audio.bad_rate", "audio.bad_channels", "audio.too_long"."""
    if not is_finite_number(rate) or not budget.min_rate <= rate <= budget.max_rate:
        raise MediaError(
            "audio.bad_rate",
            f"the sound has a rate of {shortened(rate)} Hz; expected {budget.min_rate} to {budget.max_rate} Hz. "
            "Resample it.",
        )
    if channels > budget.channels:
        raise MediaError(
            "audio.bad_channels",
            f"the sound has {channels} channels; at most {budget.channels} are heard. Mix it down.",
        )
    if count > budget.audio_s * rate:
        raise MediaError(
            "audio.too_long",
            f"the sound lasts {count / rate:.2f} s or more; at most {budget.audio_s:g} s are heard. Cut it up.",
        )


_FULL_SCALE = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31, "flt": 1.0, "dbl": 1.0}


def _to_float(frame: AudioFrame) -> Samples:
    """One frame -> (C, W) float32 in [-1, 1]."""
    name = frame.format.name.removesuffix("p")
    if name not in _FULL_SCALE:
        raise MediaError(
            "audio.decode_failed", f"the sound has samples of type {frame.format.name}; convert it to WAV."
        )
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    block = values.astype(np.float32)
    if name == "u8":
        block -= 128  # unsigned, silence at 128
    block /= np.float32(_FULL_SCALE[name])
    return block
