"""A live session, as its user holds it: what is said and shown is read while it comes in, and answered when asked.

    session.push_audio(pcm, 16000)      # any cut, as it comes from a microphone
    session.push_frame(image, at=0.5)
    session.add("What is this?")
    for event in session.respond(): ...
    session.cancel(); session.truncate(heard_seconds=1.2)

The law: an answer is what it would be if the whole conversation, with whole media, had been given at once.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import weakref
from dataclasses import dataclass, replace
from time import perf_counter
from types import TracebackType

import numpy as np
import numpy.typing as npt

from descant.config import OUTPUT_RATE_HZ
from descant.engine.answer import Answer, AnswerRecord
from descant.engine.engine import Engine
from descant.engine.sampling import SEED_END, check_sampling
from descant.engine.session import AnswerSettings
from descant.engine.spoken_prefix import SECONDS_PER_LETTER, pace_of, spoken_prefix
from descant.errors import OptionError, SessionError, shortened
from descant.inputs.turn import TurnFormatter
from descant.model.codec import PreparedVoice
from descant.types import Budget, Part, Progress, Text, check_plain

# Of what was added and laid out: then it is laid out anew. So adding costs what was added, not all of the turn.
GROWTH_SHARE = 1.125
LAYOUT_EVERY_S = 0.4  # of new sound or pictures: then what is there is laid out and read


@dataclass(frozen=True)
class SessionTerms:
    """The terms of a whole live session. settings: of its answers; the seed is that of the first.

    max_tokens: of context; drop: whether its oldest turns make room, or the answer is refused.
    """

    settings: AnswerSettings
    instructions: str | None = None
    max_tokens: int = 32768
    drop: bool = True
    budget: Budget | None = None


class LiveSession:
    """A conversation that is heard while it goes on. Close it, or use it as a context manager; dropping it closes it.

    One answer at a time; while one is made, what is pushed belongs to the next turn. Methods may be called from any
    thread. A refused push raises MediaError and leaves everything as it was.
    """

    def __init__(self, engine: Engine, formatter: TurnFormatter, terms: SessionTerms):
        speech = terms.settings.voice is not None
        self._engine = engine
        self._formatter = formatter
        self._terms = terms
        system = formatter.system(terms.instructions, speech=speech)
        if len(system) >= terms.max_tokens:
            raise OptionError(
                f"instructions of {len(system)} tokens leave nothing of a context of {terms.max_tokens}; shorten them"
            )
        closing = formatter.closing()
        self._number = engine.open(terms.settings, system, closing, max_tokens=terms.max_tokens, drop=terms.drop)
        self._leave = weakref.finalize(self, engine.close_session, self._number)
        self._leave.atexit = False
        self._lock = threading.RLock()
        self._turn = formatter.turn(terms.budget)
        self._size = 0  # of the turn when what was added was last laid out
        self._laid_out = 0.0  # seconds of sound, and of pictures, that were there when it was last laid out
        self._sound = self._sight = 0.0
        self._last: AnswerRecord | None = None
        self._answer: weakref.ref[Answer] | None = None
        self._turns = 0
        self._kept = sys.maxsize  # characters of the last answer that were not cut off
        self._pace = SECONDS_PER_LETTER

    def push_audio(self, pcm: bytes | npt.NDArray[np.generic], rate: int) -> None:
        """Take a microphone's sound: mono, little-endian 16-bit PCM as bytes, or (W,) int16, or float in [-1, 1].

        It may go on for ever. Of a turn in which nothing was said yet the last seconds are kept, and of one that is
        longer than what can be heard at once (300 s) the end; Progress("forgotten") says so.
        """
        self._engine.give_way()
        with self._lock:
            self._check_open()
            self._turn.push_audio(pcm, rate)
            self._sound += (len(pcm) // 2 if isinstance(pcm, bytes | bytearray | memoryview) else len(pcm)) / rate
            self._lay_out()

    def push_frame(self, image: object, at: float) -> None:
        """Take a frame as a camera gives it: RGB (H, W, 3) uint8, a path, or the bytes of a picture, at a time.

        at: seconds since the turn began with its first sound or frame; never less than before.
        """
        self._engine.give_way()
        with self._lock:
            self._check_open()
            self._turn.push_frame(image, at)
            self._sight = at
            self._lay_out()

    def add(self, *parts: Part | str) -> None:
        """Typed text, and pictures, sounds or videos as files. Added while sound comes in, they stand after it."""
        self._engine.give_way()
        with self._lock:
            self._check_open()
            self._turn.add([Text(part) if isinstance(part, str) else part for part in parts])
            if self._turn.size >= GROWTH_SHARE * self._size:
                self._size = self._turn.size
                self._engine.update_draft(self._number, self._turn.tokens())

    def clear(self) -> None:
        """Drop what was pushed since the last answer, as if it had never been heard or seen; what was added stays."""
        with self._lock:
            self._check_open()
            self._turn.clear()
            self._laid_out = self._sound = self._sight = 0.0
            self._engine.update_draft(self._number, self._turn.tokens())

    def respond(self, *, max_tokens: int | None = None, voice: str | None = None) -> Answer:
        """The turn is over: its answer, event by event. Only what was not read yet is read now.

        max_tokens: the most that this answer may write (None: as the session's sampling says); voice: who speaks it
        (None: the session's).
        SessionError: an answer is being made, or there is nothing to answer; MediaError: the sound is too short to be
        heard; BusyError: the queue is full. Then nothing is lost, and it can be asked again.
        """
        with self._lock:
            self._check_open()
            if self._last is not None and not self._last.over:
                if self._answer is not None and self._answer() is not None:
                    raise SessionError("an answer is being made; take its events, or cancel() it, before respond()")
                self.cancel()  # it was dropped
            clock = perf_counter()
            settings = self._terms.settings
            seed = (settings.seed + self._turns) % SEED_END
            settings = replace(settings, seed=seed, voice=self._voice(voice))
            if max_tokens is not None:
                settings = replace(settings, text=replace(settings.text, max_tokens=max_tokens))
                check_sampling(settings.text, "text")
            answer = self._engine.ask(self._number, self._turn.finish, settings, clock)
            answer.owner = self
            if forgotten := round(self._turn.forgotten_s):
                answer.put(Progress("forgotten", forgotten, round(max(self._sound, self._sight)), 0.0))
            self._begin(answer)
            return answer

    def cancel(self) -> None:
        """Stop the answer that is being made, if any: none of its events comes any more. What it wrote so far stays in
        the conversation; ``truncate`` says how much of it was heard. The session goes on."""
        self._engine.give_way()
        with self._lock:
            answer = self._answer() if self._answer is not None else None
            if answer is not None:
                answer.cancel()
            elif self._last is not None and not self._last.over:  # it was dropped, and its finalizer may come too late
                self._engine.cancel(self._last.number)
                self._last.over = True

    def truncate(self, heard_seconds: float) -> str:
        """Keep of the last answer only the words that were heard in so many seconds of its sound; returns them.

        An answer that is still being made is cancelled first. Which words they are is estimated; see `spoken_prefix`.
        What was cut off before stays cut off.
        """
        check_plain("heard_seconds", heard_seconds, "float")
        if not heard_seconds >= 0:  # nor if it is no number; found before anything is cancelled
            raise OptionError(f"heard_seconds={heard_seconds} is no time; give seconds, 0 or more")
        self._engine.give_way()
        with self._lock:
            self._check_open()
            last = self._last
            if last is None or self._terms.settings.voice is None:
                raise SessionError("there is no spoken answer to truncate; respond() with a voice first")
            self.cancel()
            made = last.samples / OUTPUT_RATE_HZ
            spoken = made if last.complete else None
            kept = spoken_prefix(last.text, min(heard_seconds, made), spoken=spoken, pace=self._pace)
            if kept < self._kept:
                self._kept = kept
                self._engine.truncate_reply(self._number, last.number, kept)
            return last.text[: self._kept]

    def close(self) -> None:
        """Let go of everything. Harmless when repeated."""
        with self._lock:
            self.cancel()
            self._turn.cancel()
            self._leave()

    # ---------------------------------------------------------------- for event loops

    async def apush_audio(self, pcm: bytes | npt.NDArray[np.generic], rate: int) -> None:
        """``push_audio`` for an event loop: what is slow in it runs on another thread, as in all methods here."""
        await asyncio.to_thread(self.push_audio, pcm, rate)

    async def apush_frame(self, image: object, at: float) -> None:
        """``push_frame`` for an event loop."""
        await asyncio.to_thread(self.push_frame, image, at)

    async def aadd(self, *parts: Part | str) -> None:
        """``add`` for an event loop."""
        await asyncio.to_thread(self.add, *parts)

    async def aclear(self) -> None:
        """``clear`` for an event loop."""
        await asyncio.to_thread(self.clear)

    async def arespond(self, *, max_tokens: int | None = None, voice: str | None = None) -> Answer:
        """``respond`` for an event loop: ``async for event in await session.arespond()``."""
        return await asyncio.to_thread(self.respond, max_tokens=max_tokens, voice=voice)

    def __enter__(self) -> LiveSession:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # ---------------------------------------------------------------- inside

    def _check_open(self) -> None:
        if not self._leave.alive:
            raise SessionError("the live session is closed; open another")
        self._engine.check_open()

    def _voice(self, name: str | None) -> PreparedVoice | None:
        """The voice of one answer."""
        own = self._terms.settings.voice
        if name is None:
            return own
        voices = self._engine.models.voices
        if own is None:
            raise OptionError(f"voice={shortened(name)} for a session without speech; open one with speech=True")
        if not isinstance(name, str) or name not in voices:
            raise OptionError(f"unknown voice {shortened(name)}; this model has {', '.join(voices)}")
        return voices[name]

    def _begin(self, answer: Answer) -> None:
        """An answer is being made; what comes now is the next turn."""
        last = self._last
        if last is not None and last.complete and last.samples:
            self._pace = pace_of(last.text, last.samples / OUTPUT_RATE_HZ)
        self._last = answer.record
        self._answer = weakref.ref(answer)
        self._turn = self._formatter.turn(self._terms.budget)
        self._kept = sys.maxsize
        self._laid_out = self._sound = self._sight = 0.0
        self._size = 0
        self._turns += 1

    def _lay_out(self) -> None:
        """Have what is there read, now and then; a block that still grows only when nothing else waits to be read."""
        there = max(self._sound, self._sight)
        if there - self._laid_out < LAYOUT_EVERY_S:
            return
        self._laid_out = there
        settled = not self._engine.is_caught_up(self._number)
        self._engine.update_draft(self._number, self._turn.tokens(settled=settled))
