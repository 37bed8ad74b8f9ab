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
import threading
import weakref
from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from types import TracebackType

import numpy as np
import numpy.typing as npt

from descant.checks import check_plain
from descant.config import OUTPUT_RATE_HZ
from descant.engine.answer import Answer, AnswerRecord
from descant.engine.conversation import Arrangement, Entry
from descant.engine.engine import Engine
from descant.engine.history import History
from descant.engine.sampling import SEED_END, check_sampling
from descant.engine.session import AnswerSettings, Request, SessionTerms
from descant.engine.spoken_prefix import SECONDS_PER_LETTER, pace_of, spoken_prefix
from descant.errors import OptionError, SessionError, shortened
from descant.inputs.runs import PositionRun, runs_of
from descant.inputs.turn import TurnFormatter
from descant.model.codec import PreparedVoice
from descant.tokens import PromptTokens, concatenate
from descant.tools import ToolUse
from descant.types import Message, Part, Progress, Text

# Of what was added and laid out: then it is laid out anew. So adding costs what was added, not all of the turn.
GROWTH_SHARE = 1.125
LAYOUT_EVERY_S = 0.4  # of new sound or pictures: then what is there is laid out and read


class LiveSession:
    """A conversation that is heard while it goes on. Close it, or use it as a context manager; dropping it closes it.

    One answer at a time; while one is made, what is pushed belongs to the next turn. Methods may be called from any
    thread. A refused push raises MediaError and leaves everything as it was.
    """

    def __init__(self, engine: Engine, formatter: TurnFormatter, terms: SessionTerms):
        self._engine = engine
        self._formatter = formatter
        self._terms = terms
        self._instructions = terms.instructions
        self._tools = terms.settings.tools
        system = self._system(terms.instructions, self._tools)
        around = (formatter.opening(), formatter.closing())
        self._number = engine.open(terms.settings, system, around, max_tokens=terms.max_tokens, drop=terms.drop)
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
        self._pace = SECONDS_PER_LETTER
        self._history = History()

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

    def respond(
        self,
        *,
        max_tokens: int | None = None,
        voice: str | None = None,
        speech: bool = True,
        instructions: str | None = None,
        tools: ToolUse | None = None,
        go_on: bool = False,
    ) -> Answer:
        """The turn is over: its answer, event by event. Only what was not read yet is read now. go_on: where nothing
        was said since, what stands at the end of the conversation is answered, or the system turn alone.

        Of this answer alone: max_tokens: the most that it may write (None: as the session's sampling says); voice: who
        speaks it (None: the session's), if ``speech``; instructions, tools: of the system turn (None: the session's).
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
            settings = self._settings(max_tokens, voice, tools, speech=speech)
            system = self._own_system(instructions, tools)
            goes_on = go_on and self._turn.empty and (self._history.order or instructions or self._instructions)
            turn = None if goes_on else self._finish_turn
            answer = self._engine.ask(self._number, turn, settings, clock, system)
            answer.owner = self
            if turn is not None and (forgotten := round(self._turn.forgotten_s)):
                answer.put(Progress("forgotten", forgotten, round(max(self._sound, self._sight)), 0.0))
            self._begin(answer)
            return answer

    def respond_beside(
        self,
        messages: Sequence[int | Message],
        *,
        max_tokens: int | None = None,
        voice: str | None = None,
        speech: bool = True,
        instructions: str | None = None,
        tools: ToolUse | None = None,
    ) -> Answer:
        """An answer beside the conversation, which it leaves as it is; any number of them may be made at once.

        messages: what it answers: messages of its own, and keys of the conversation's. The rest is as in ``respond``.
        SessionError: a key is of no message that is still held.
        """
        settings = self._settings(max_tokens, voice, tools, speech=speech)
        system = self._own_system(instructions, tools) or self._system(self._instructions, self._tools)
        with self._lock:
            said = self._history.tokens(messages, self._formatter)
        prompt = concatenate([system, said, self._formatter.opening()])
        return self._engine.submit(Request(prompt, settings))

    # ---------------------------------------------------------------- messages

    @property
    def keys(self) -> tuple[int, ...]:
        """The keys of all messages and answers, one after another; those that made room for others are among them."""
        return tuple(self._history.order)

    def commit(self) -> int:
        """The turn is over, and not answered yet: it is a message of the conversation from now on. Returns its key.

        SessionError: nothing was pushed or added; MediaError: the sound is too short to be heard.
        """
        with self._lock:
            self._check_open()
            turn = self._finish_turn()
            self._new_turn()
            self._engine.arrange(self._number, Arrangement(tuple(self._history.order), (turn,), commits=True))
            return turn.key

    def insert(self, message: Message, after: int | None = None) -> int:
        """Put a message into the conversation: at its end, or after another (its key; 0: at the beginning). Returns its
        key. While an answer is made, it is put in when that has ended. OptionError: no message has the key ``after``.
        """
        self._check_open()
        self._history.place_after(after)  # before the media are read
        entry = self._engine.entry(self._formatter.message(message.role, message.content))
        with self._lock:
            self._engine.arrange(self._number, self._history.put(entry, self._history.place_after(after)))
            return entry.key

    def remove(self, key: int) -> None:
        """Take a message, or an answer that has ended, out of the conversation. OptionError: none has this key."""
        with self._lock:
            self._check_open()
            self._engine.arrange(self._number, self._history.take_out(key))

    def layout(self, key: int) -> list[PositionRun]:
        """Where a message's tokens stand, counted from its first position. SessionError: it is not held any more."""
        return runs_of(self._history.tokens([key], self._formatter))

    def instruct(self, instructions: str | None, tools: ToolUse | None = None) -> None:
        """Change the system turn; all that was said is read again behind it. None: the model's own, and no tools."""
        with self._lock:
            self._check_open()
            system = self._system(instructions, tools)
            self._instructions = instructions
            self._tools = tools
            self._engine.arrange(self._number, Arrangement(tuple(self._history.order), system=system))

    def begin_with(self, other: LiveSession) -> None:
        """Begin with all that was said in another session of the same engine, under the same keys. SessionError: that
        one is being answered, or something was said here already."""
        with other._lock, self._lock:
            self._check_open()
            if other._last is not None and not other._last.over:
                raise SessionError("the other session is being answered; begin with it when that has ended")
            self._engine.arrange(self._number, self._history.copy(other._history, self._formatter))

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

    def truncate(self, heard_seconds: float, key: int | None = None) -> str:
        """Keep of an answer only the words that were heard in so many seconds of its sound; returns them.

        key: the answer's number (None: the last). One that is still being made is cancelled first. Which words they are
        is estimated; see `spoken_prefix`. What was cut off before stays cut off.
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
            reply = self._history.reply(last.number if key is None else key)
            if reply.record is last:
                self.cancel()
            record = reply.record
            made = record.samples / OUTPUT_RATE_HZ
            spoken = made if record.complete else None
            kept = spoken_prefix(record.text, min(heard_seconds, made), spoken=spoken, pace=self._pace)
            if kept < reply.kept:
                reply.kept = kept
                self._engine.truncate_reply(self._number, record.number, kept)
            return reply.text

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

    async def arespond(
        self, *, max_tokens: int | None = None, voice: str | None = None, tools: ToolUse | None = None
    ) -> Answer:
        """``respond`` for an event loop: ``async for event in await session.arespond()``."""
        return await asyncio.to_thread(self.respond, max_tokens=max_tokens, voice=voice, tools=tools)

    def __enter__(self) -> LiveSession:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # ---------------------------------------------------------------- inside

    def _check_open(self) -> None:
        if not self._leave.alive:
            raise SessionError("the live session is closed; open another")
        self._engine.check_open()

    def _settings(
        self, max_tokens: int | None, voice: str | None, tools: ToolUse | None, *, speech: bool
    ) -> AnswerSettings:
        """The settings of one answer."""
        own = self._terms.settings
        seed = (own.seed + self._turns) % SEED_END
        settings = replace(own, seed=seed, voice=self._voice(voice) if speech else None, tools=tools or self._tools)
        if settings.tools is not own.tools:
            settings = replace(settings, call_grammar=None)  # it is of other tools
        if max_tokens is not None:
            settings = replace(settings, text=replace(settings.text, max_tokens=max_tokens))
            check_sampling(settings.text, "text")
        return settings

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

    def _own_system(self, instructions: str | None, tools: ToolUse | None) -> PromptTokens | None:
        """The system turn of one answer; None: it is the session's."""
        if instructions is None and tools is None:
            return None
        return self._system(self._instructions if instructions is None else instructions, tools or self._tools)

    def _system(self, instructions: str | None, use: ToolUse | None) -> PromptTokens:
        """The system turn. Raises OptionError where it leaves no room for anything else."""
        check_plain("instructions", instructions, "str | None")
        tools = () if use is None else use.tools
        system = self._formatter.system(instructions, speech=self._terms.settings.voice is not None, tools=tools)
        if len(system) >= self._terms.max_tokens:
            most = self._terms.max_tokens
            raise OptionError(f"instructions of {len(system)} tokens leave nothing of {most} of context; shorten them")
        return system

    def _finish_turn(self) -> Entry:
        """The turn that was being made, as a message of the conversation."""
        turn = self._engine.entry(self._turn.finish(generate=False))
        self._history.put(turn, len(self._history.order))
        return turn

    def _begin(self, answer: Answer) -> None:
        """An answer is being made; what comes now is the next turn."""
        last = self._last
        if last is not None and last.complete and last.samples:
            self._pace = pace_of(last.text, last.samples / OUTPUT_RATE_HZ)
        self._last = answer.record
        self._answer = weakref.ref(answer)
        self._history.answered_by(answer.record)
        if not self._turn.empty:
            self._new_turn()
        self._turns += 1

    def _new_turn(self) -> None:
        """Begin the next turn."""
        self._turn = self._formatter.turn(self._terms.budget)
        self._laid_out = self._sound = self._sight = 0.0
        self._size = 0

    def _lay_out(self) -> None:
        """Have what is there read, now and then; a block that still grows only when nothing else waits to be read."""
        there = max(self._sound, self._sight)
        if there - self._laid_out < LAYOUT_EVERY_S:
            return
        self._laid_out = there
        settled = not self._engine.is_caught_up(self._number)
        self._engine.update_draft(self._number, self._turn.tokens(settled=settled))
