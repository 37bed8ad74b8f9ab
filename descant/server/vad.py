"""When somebody speaks, by loudness: the voice activity detection that needs no model.

    sound, in any cuts -> frames of 20 ms -> louder than the room? -> started / stopped

The room's level is followed from below: it sinks at once and rises slowly, so that a voice is not taken for the room.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

FRAME_S = 0.02
START_S = 0.06  # of frames that are loud, in a row, before it counts as speech: a click is none
QUIETEST_RMS = 1e-4  # a room is not taken to be more silent than that
RISE_A_FRAME = 1.02  # by which the room's level may rise
LOUDNESS_RATIOS = (2.0, 10.0)  # over the room's level, at thresholds 0 and 1
SPEECH_RMS = 0.004  # -48 dB of full scale: what is fainter is nobody who speaks to this microphone


@dataclass(frozen=True)
class VadSettings:
    """threshold: 0 (hears everything) to 1; silence_s: after which a turn is over; padding_s: of sound before its start
    that belongs to it."""

    threshold: float = 0.5
    silence_s: float = 0.5
    padding_s: float = 0.3


@dataclass(frozen=True)
class VadEvent:
    """at_s: seconds of sound since the beginning, where speech starts (with its padding) or ends."""

    kind: Literal["started", "stopped"]
    at_s: float


class EnergyVad:
    """The detector of one microphone."""

    def __init__(self, rate: int, settings: VadSettings):
        self.rate = rate
        self.settings = settings
        self.speaking = False
        self._size = round(rate * FRAME_S)
        self._rest = np.zeros(0, np.float32)
        self._frames = 0  # that were looked at
        self._loud = 0  # in a row
        self._quiet = 0
        self._room = SPEECH_RMS

    def push(self, samples: npt.NDArray[np.float32]) -> Iterator[VadEvent]:
        """Take samples (W,) float32; tells what they start and stop."""
        whole = np.concatenate([self._rest, samples])
        count = len(whole) // self._size
        self._rest = whole[count * self._size :]
        for frame in whole[: count * self._size].reshape(count, self._size):
            self._frames += 1
            event = self._look(float(np.sqrt(np.square(frame).mean())))
            if event is not None:
                yield event

    def _look(self, rms: float) -> VadEvent | None:
        """One frame by its loudness."""
        low, high = LOUDNESS_RATIOS
        ratio = low + (high - low) * self.settings.threshold
        loud = rms > max(SPEECH_RMS, ratio * self._room)
        self._room = max(QUIETEST_RMS, min(rms, self._room * RISE_A_FRAME) if not self.speaking else self._room)
        self._loud = self._loud + 1 if loud else 0
        self._quiet = 0 if loud else self._quiet + 1
        now = self._frames * FRAME_S
        if not self.speaking and self._loud * FRAME_S >= START_S:
            self.speaking = True
            return VadEvent("started", max(0.0, now - self._loud * FRAME_S - self.settings.padding_s))
        if self.speaking and self._quiet * FRAME_S >= self.settings.silence_s:
            self.speaking = False
            return VadEvent("stopped", now)
        return None
