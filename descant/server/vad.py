"""When somebody speaks: the voice activity detection of one microphone.

    sound, in any cuts -> frames -> score of each (0 to 1) -> above the threshold for a while? -> events

    maybe     the first frame that may be speech: whoever listens can begin to read, and takes it back if it was nothing
    started   it is speech
    nothing   it was none
    pausing   a pause in speech has begun to be long
    stopped   the pause was long enough

The score comes from loudness, which needs no model, or from silero's network (``silero.py``, extra ``[vad]``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

START_S = 0.06  # of speech in a row before it counts: a click is none
TOLD_PAUSE_S = 0.2  # after which a pause is told
RELEASE_SHARE = 0.7  # of the threshold: below it speech ends, so that it does not flutter
FRAME_S = 0.02  # of the detection by loudness
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
    """at_s: seconds of sound since the beginning: where speech starts (with its padding); where a pause began, or how
    far it has come."""

    kind: Literal["maybe", "started", "nothing", "pausing", "stopped"]
    at_s: float


class SpeechScorer(Protocol):
    """A judge of frames of ``size`` samples (0: of none yet), each ``frame_s`` long."""

    size: int
    frame_s: float

    def score(self, frame: npt.NDArray[np.float32], *, speaking: bool) -> float:
        """Rate a frame (W,): 0 is no speech, 1 is. speaking: whether the frames before it were."""


class LoudnessScorer:
    """Speech is louder than the room, whose level is followed from below: it sinks at once and rises slowly, so that a
    voice is not taken for the room."""

    frame_s = FRAME_S

    def __init__(self, rate: int):
        self.size = round(rate * FRAME_S)
        self._room = SPEECH_RMS

    def score(self, frame: npt.NDArray[np.float32], *, speaking: bool) -> float:
        """0 at twice the room's level, 1 at ten times."""
        rms = float(np.sqrt(np.square(frame).mean()))
        low, high = LOUDNESS_RATIOS
        ratio = rms / self._room
        if not speaking:
            self._room = max(QUIETEST_RMS, min(rms, self._room * RISE_A_FRAME))
        return 0.0 if rms <= SPEECH_RMS else min(1.0, max(0.0, (ratio - low) / (high - low)))


class TurnDetector:
    """The detector of one microphone."""

    def __init__(self, scorer: SpeechScorer, settings: VadSettings):
        self.settings = settings
        self.speaking = False
        self._scorer = scorer
        self._rest = np.zeros(0, np.float32)
        self._now = 0.0  # seconds that were looked at
        self._loud = 0.0  # seconds in a row, before it counts as speech
        self._quiet = 0.0

    def push(self, samples: npt.NDArray[np.float32]) -> Iterator[VadEvent]:
        """Take samples (W,) float32; tells what they start and stop."""
        whole = np.concatenate([self._rest, samples])
        size = self._scorer.size
        count = len(whole) // size
        self._rest = whole[count * size :]
        for frame in whole[: count * size].reshape(count, size):
            threshold = self.settings.threshold * (RELEASE_SHARE if self.speaking or self._loud else 1)
            score = self._scorer.score(frame, speaking=self.speaking)
            self._now += self._scorer.frame_s
            yield from self._look(score > threshold)

    @property
    def quiet_s(self) -> float:
        """Seconds since the last speech."""
        return self._quiet

    def stop(self) -> None:
        """The turn is over, whoever says so."""
        self.speaking = False
        self._loud = self._quiet = 0.0

    def _look(self, loud: bool) -> Iterator[VadEvent]:
        """One frame."""
        frame = self._scorer.frame_s
        self._quiet = 0.0 if loud else self._quiet + frame
        if self.speaking:
            if self._quiet >= TOLD_PAUSE_S > self._quiet - frame:
                yield VadEvent("pausing", self._now - self._quiet)
            if self._quiet >= self.settings.silence_s:
                self.stop()
                yield VadEvent("stopped", self._now)
            return
        began = self._loud > 0
        self._loud = self._loud + frame if loud else 0.0
        if began and not loud:
            yield VadEvent("nothing", self._now)
        if loud and not began:
            yield VadEvent("maybe", max(0.0, self._now - self._loud - self.settings.padding_s))
        if self._loud >= START_S - 1e-9:
            start = max(0.0, self._now - self._loud - self.settings.padding_s)
            self._loud = 0.0
            self.speaking = True
            yield VadEvent("started", start)
