"""A turn that is spoken into the microphone, and who tells when it begins and ends without a key."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from descant.cli.sound_card import Microphone
from descant.server.silero import detector
from descant.server.vad import VadSettings
from descant.types import Audio

if TYPE_CHECKING:
    from descant.omni import LiveSession

KEPT_TURN_S = 300.0  # of a turn: what can be heard at once
SHORTEST_S = 0.2  # less is no speech
PIECE_S = 0.02  # that is looked at at once, at whatever cuts the sound comes in
ECHO_S = 0.3  # after an answer, in which the room may still be heard

TurnMark = Literal["began", "ended"]


class SpokenTurn:
    """The sound of a turn: pushed into the session while it comes in, and kept for ``/save`` and ``/retry``."""

    def __init__(self, rate: int):
        self.rate = rate
        self.samples = 0
        self.is_mute = True  # every sample was 0, as where the system gives silence to who may not listen
        self._pieces: list[npt.NDArray[np.float32]] = []

    def push(self, session: LiveSession, samples: npt.NDArray[np.float32]) -> None:
        """Take samples (W,)."""
        if not len(samples):
            return
        session.push_audio(samples, self.rate)
        self.samples += len(samples)
        self.is_mute = self.is_mute and not samples.any()
        if self.samples <= KEPT_TURN_S * self.rate:
            self._pieces.append(samples)

    @property
    def sound(self) -> Audio | None:
        """All of it; None: too little was said."""
        if self.samples < SHORTEST_S * self.rate:
            return None
        return Audio(np.concatenate(self._pieces), self.rate)


class TurnListener:
    """Ears that are always open: the server's detection of speech tells turns, which are pushed into the session as
    they come in. What may be speech is read at its first moment, with what was just before it, and taken back if it was
    nothing. turn: the last that ended; latest: what came last (W,)."""

    def __init__(self, microphone: Microphone):
        self.microphone = microphone
        self.turn = SpokenTurn(microphone.rate)
        self.latest = np.zeros(0, np.float32)
        self._settings = VadSettings()
        self._detector = detector("auto", microphone.rate, self._settings)
        self._rest = np.zeros(0, np.float32)
        self._before: deque[npt.NDArray[np.float32]] = deque()  # in which nobody speaks: what may come begins in it
        self._reading = False
        self._deaf = 0  # samples that are not listened to

    def hear(self, session: LiveSession) -> TurnMark | None:
        """Take what the microphone gave; tells when a turn begins or has ended. What came after that is left for
        the next call."""
        self.latest = self.microphone.read()
        self._rest = np.concatenate([self._rest, self._awake(self.latest)])
        size = round(PIECE_S * self.microphone.rate)
        while len(self._rest) >= size:
            piece, self._rest = self._rest[:size], self._rest[size:]
            if (mark := self._look(session, piece)) is not None:
                return mark
        return None

    def skip(self) -> None:
        """Be deaf to what comes now and shortly after: the model speaks, or somebody types."""
        self.microphone.read()
        self._rest = self._rest[:0]
        self._before.clear()
        self._detector.stop()
        self._deaf = round(ECHO_S * self.microphone.rate)

    def take_back(self, session: LiveSession) -> None:
        """Forget what was said of a turn that has not ended."""
        self._before.clear()
        if self._reading:
            self._reading = False
            session.clear()

    def _awake(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        deaf = min(self._deaf, len(samples))
        self._deaf -= deaf
        return samples[deaf:]

    def _look(self, session: LiveSession, piece: npt.NDArray[np.float32]) -> TurnMark | None:
        """One piece: short enough that at most one turn begins or ends in it."""
        mark: TurnMark | None = None
        self._before.append(piece)
        for event in self._detector.push(piece):
            match event.kind:
                case "maybe":
                    self._reading = True
                    self.turn = SpokenTurn(self.microphone.rate)
                case "nothing":
                    self.take_back(session)
                case "started":
                    mark = "began"
                case "stopped":
                    mark = "ended"
        while self._reading and self._before:
            self.turn.push(session, self._before.popleft())
        while len(self._before) * PIECE_S > self._settings.padding_s:
            self._before.popleft()
        self._reading = self._reading and mark != "ended"
        return mark
