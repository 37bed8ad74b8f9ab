"""The clock of one answer at its listener: first text, first sound, the end, and where a player ran out of sound."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from descant.remote.wire import SAMPLE_BYTES, STREAM_RATE_HZ


@dataclass
class Heard:
    """One answer as it comes. Times are seconds from ``begin``; None: there was none. underruns: times that a player
    which began at the first sound had none left before the next came; stalled_s: how long it then waited in all."""

    begin: float = field(default_factory=time.perf_counter)
    text: str = ""
    samples: int = 0
    first_text_s: float | None = None
    first_audio_s: float | None = None
    total_s: float = 0.0
    underruns: int = 0
    stalled_s: float = 0.0

    def take(self, text: str, pcm: bytes, now: float | None = None) -> float:
        """Count text and whole 16-bit samples that came at ``now``; returns its time."""
        t = (time.perf_counter() if now is None else now) - self.begin
        self.total_s = t
        if text:
            self.text += text
            self.first_text_s = t if self.first_text_s is None else self.first_text_s
        if pcm:
            if self.first_audio_s is None:
                self.first_audio_s = t
            elif (late := t - self.first_audio_s - self.audio_s - self.stalled_s) > 0:
                self.underruns += 1
                self.stalled_s += late
            self.samples += len(pcm) // SAMPLE_BYTES
        return t

    @property
    def audio_s(self) -> float:
        """Length of the sound."""
        return self.samples / STREAM_RATE_HZ

    @property
    def rtf(self) -> float | None:
        """Time that the answer took / length of its sound; below 1 it is faster than it is heard."""
        return self.total_s / self.audio_s if self.samples else None
