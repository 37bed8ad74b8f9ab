"""Who is being served, and what the scheduler needs to know of the listener."""

from __future__ import annotations

import time
import weakref
from dataclasses import dataclass

from descant.engine.answer import Answer, Item
from descant.engine.limits import Promise
from descant.engine.loop import has_work, missing
from descant.engine.scheduler import Standing
from descant.engine.session import RATE, Models, Phase, Request, Session
from descant.engine.talk import Talk
from descant.model.codec import CodecState
from descant.types import AudioChunk, Event

LATER = 1 << 40  # added to the place of who has not asked yet: those who wait for an answer are read first


@dataclass
class Asked:
    """A request in the queue. session: to be seated; or, of a live session, its seat's number and its codec state."""

    answer: weakref.ref[Answer]
    request: Request
    promise: Promise
    session: Session | None = None
    seat: int = 0
    codec: CodecState | None = None
    place: int = -1  # in the queue, as its reader was told

    def tell(self, *items: Item) -> None:
        if (reader := self.answer()) is not None:
            for item in items:
                reader.put(item)


@dataclass
class Seat:
    """A session that is served. answer, asked: what is being answered, and its number (0: a live session listens).

    granted: whether there is room to read on. touched: when its user last said something, seconds.
    """

    number: int
    session: Session
    promised: Promise
    answer: weakref.ref[Answer] | None = None
    asked: int = 0
    talk: Talk | None = None
    granted: bool = True
    touched: float = 0.0
    began: float = 0.0  # when its first sound went out, seconds

    @property
    def listens(self) -> bool:
        return not self.asked

    @property
    def reader(self) -> Answer | None:
        return None if self.answer is None else self.answer()

    def unplayed(self, now: float) -> float | None:
        """Seconds of sound that a listener who plays in real time has not heard yet; None where none is expected."""
        speech = self.session.speech
        if speech is None or speech.drained or self.session.phase is Phase.PREFILL:
            return None
        return max(0.0, speech.samples / RATE - (now - self.began)) if self.session.first_audio else 0.0

    def standing(self, models: Models, now: float) -> Standing:
        session, speech = self.session, self.session.speech
        phase, reads = session.phase, session.phase in (Phase.LISTENING, Phase.PREFILL) and self.granted
        singing = speech is not None and phase in (Phase.THINKING, Phase.SPEAKING) and not speech.over
        return Standing(
            str(self.number),
            self.number + LATER * self.listens,
            session.context.unread if reads else 0,
            thinks=phase is Phase.THINKING,
            talks=singing and bool(speech and (speech.rows or phase is Phase.SPEAKING)),
            decodes=speech is not None and not speech.drained and has_work(models, speech),
            missing=missing(models, speech) if singing and speech is not None else None,
            unplayed=self.unplayed(now),
        )

    def hand(self, event: Event) -> None:
        """Give an event to the reader, and keep the listener's clock: when sound began, and how often none was left."""
        if (reader := self.reader) is not None:
            reader.put(event)
        if not isinstance(event, AudioChunk):
            return
        now, heard = time.perf_counter(), event.start_sample / RATE
        if event.start_sample == 0:
            self.began = now
        elif now - self.began > heard:
            self.session.underruns += 1
            self.began = now - heard
