"""One request, as data: everything that changes while an answer is made lives in ``Session``.

```
LISTENING --> PREFILL --> THINKING --> SPEAKING --> DONE
   |             |            |            |
   +-------------+------------+------------+---> CANCELLED | FAILED
```
LISTENING: a live session between two answers; what its user says is read, and nothing is asked yet. THINKING: the
Thinker still writes, and the Talker follows it. SPEAKING: the text is complete, the Talker runs on.

```
FOLLOWING --> PADDING --> FLUSHING --> DONE          the speech of an answer
```
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

import torch
from torch import Tensor

from descant.config import OUTPUT_RATE_HZ
from descant.engine.chances import Noted
from descant.engine.context import Context
from descant.engine.grammar import Constraint, Grammar
from descant.engine.sampling import Sampler
from descant.engine.writing import Writing
from descant.errors import DescantError
from descant.model.codec import CodecState, PreparedVoice
from descant.nn.pages import PageTable
from descant.tokens import PromptTokens
from descant.tools import ToolCall, ToolUse
from descant.types import Budget, Decoding, Event, Finished, Sampling, Timings, TokenChance, Usage


class Phase(Enum):
    """Where a session is; see the head of this file."""

    LISTENING = "listening"
    PREFILL = "prefill"
    THINKING = "thinking"
    SPEAKING = "speaking"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


END_PHASES = frozenset({Phase.DONE, Phase.CANCELLED, Phase.FAILED})
PHASES_AFTER: Mapping[Phase, frozenset[Phase]] = {
    Phase.LISTENING: frozenset({Phase.CANCELLED, Phase.FAILED}),
    Phase.PREFILL: frozenset({Phase.THINKING, Phase.CANCELLED, Phase.FAILED}),
    Phase.THINKING: frozenset({Phase.SPEAKING, Phase.DONE, Phase.CANCELLED, Phase.FAILED}),
    Phase.SPEAKING: frozenset({Phase.DONE, Phase.CANCELLED, Phase.FAILED}),
    **{end: frozenset() for end in END_PHASES},
}


NO_USAGE = Usage(0, 0, 0)


class SpeechPhase(Enum):
    """Where the speech of an answer is. FOLLOWING: the Talker eats the reply's states and waits for the next one.
    PADDING: the text is complete; behind the states that are queued it eats the pad state for ever. FLUSHING: no more
    codes come; the codec makes the rest of the sound. DONE: all sound is out."""

    FOLLOWING = 0
    PADDING = 1
    FLUSHING = 2
    DONE = 3


@dataclass(frozen=True)
class AnswerSettings:
    """The settings of an answer, complete and checked. voice None: text only. forced: the ids of the reply, instead of
    drawing. tenant: whose pages of the cache it may share. tools: that it may call. grammar: that the text
    follows. logprobs: how many of the likeliest tokens are told (None: nothing of the kind).
    stops: texts that end the answer, and are no part of it. call_grammar: that calls of ``tools`` follow."""

    text: Sampling
    speech: Sampling
    decoding: Decoding
    seed: int
    voice: PreparedVoice | None = None
    forced: tuple[int, ...] | None = None
    tenant: str = ""
    tools: ToolUse | None = None
    grammar: Grammar | None = field(default=None, repr=False)
    logprobs: int | None = None
    stops: tuple[str, ...] = ()
    call_grammar: Grammar | None = field(default=None, repr=False)


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


@dataclass(frozen=True)
class Request:
    """One question. clock: when it was complete, seconds of ``time.perf_counter``. lead: text that is written before
    the answer's own, and not spoken. rest: what the same answer goes on with, one after another."""

    prompt: PromptTokens = field(repr=False)
    settings: AnswerSettings
    clock: float = field(default_factory=time.perf_counter)
    lead: str = ""
    rest: tuple[Request, ...] = field(default=(), repr=False)


@dataclass(eq=False)
class TextStream:
    """The Thinker's side of an answer. start: the position of the first token; drawn: the id that comes next (None: it
    is still to be drawn), from logits (V,); late (1,): the same, where it is drawn and the host does not know it yet;
    unread: the last id is still to be read back."""

    sampler: Sampler
    writing: Writing
    kv: PageTable
    start: int
    max_tokens: int
    logits: Tensor | None = None
    drawn: int | None = None
    late: Tensor | None = None
    unread: bool = False
    ids: list[int] = field(default_factory=list)  # without the stop id
    pieces: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    constraint: Constraint | None = None
    logprobs: int | None = None  # how many of the likeliest ids are noted (None: nothing is)
    noted: Noted | None = None  # of the id that was drawn last
    chances: list[tuple[int, TokenChance]] = field(default_factory=list)  # not told yet, and where their text begins
    told: int = 0  # characters


@dataclass(eq=False)
class SpeechStream:
    """The Talker's side of an answer, and the codec's.

    start: the position of the speaker row. states: reply states (hidden + embedding), (E,) each, that wait to be eaten,
    one a code. tail (2, E): the text_end state and the text_pad state. inputs: the states (E,) that the Talker reads
    next, each with the code before it. drawn: the codes that come next, the first from logits (C,); late (K,): the
    same, where the host does not know them yet. decoded: codes that the codec decoder was given.
    """

    voice: PreparedVoice
    sampler: Sampler
    kv: PageTable
    codec: CodecState
    tail: Tensor
    start: int
    max_codes: int
    phase: SpeechPhase = SpeechPhase.FOLLOWING
    states: deque[Tensor] = field(default_factory=deque)
    inputs: list[Tensor] = field(default_factory=list)
    logits: Tensor | None = None
    drawn: list[int] = field(default_factory=list)
    late: Tensor | None = None
    codes: list[int] = field(default_factory=list)  # without the stop code
    decoded: int = 0
    samples: int = 0  # emitted so far
    cut: bool = False  # by max_codes, before the Talker ended it

    @property
    def singing(self) -> bool:
        """True while more codes may come."""
        return self.phase in (SpeechPhase.FOLLOWING, SpeechPhase.PADDING)

    @property
    def has_state(self) -> bool:
        """True if the Talker could eat a state now: the next of the reply, or a pad."""
        return self.singing and (bool(self.states) or self.phase is SpeechPhase.PADDING)

    def codes_in_hand(self, most: int) -> int:
        """Codes, up to ``most``, that can be sung without the host: their states are known, and so is how they are
        drawn."""
        states = most if self.phase is SpeechPhase.PADDING else len(self.states)
        return min(most, states, self.max_codes - len(self.codes)) if self.sampler.follows else 1

    def enter(self, phase: SpeechPhase) -> None:
        """The one transition function: phases only go on. Without more codes, no state is eaten any more."""
        if phase.value <= self.phase.value:
            raise RuntimeError(f"speech in phase {self.phase.name} cannot enter {phase.name}")
        self.phase = phase
        if not self.singing:
            self.release()

    def end_text(self, rest: Iterable[Tensor] = ()) -> None:
        """Queue the rest of the states that are spoken, and the end of the text. Without a single state there is
        nothing to say."""
        if self.phase is not SpeechPhase.FOLLOWING:
            return
        self.states.extend(rest)
        if self.codes or self.states:
            self.states.append(self.tail[0])
            self.enter(SpeechPhase.PADDING)
        else:
            self.enter(SpeechPhase.FLUSHING)

    def next_state(self) -> Tensor | None:
        """Take the next state (E,): those of the reply, text_end once, then text_pad for ever. None: wait for it."""
        if self.states:
            return self.states.popleft()
        return self.tail[1] if self.phase is SpeechPhase.PADDING else None

    def release(self) -> None:
        """Forget what only more codes would need."""
        self.states.clear()
        self.inputs, self.logits, self.late = [], None, None
        self.sampler.over = True


@dataclass(eq=False)
class Session:
    """One answer on its way. ``speech`` is None when only text is asked for.

    clock: when the request was complete. reply_states: the state (D,) of every token that the Thinker read back, for a
    conversation that goes on with this context after the answer; None: the context ends with the answer.
    """

    clock: float
    context: Context
    text: TextStream
    speech: SpeechStream | None = None
    reply_states: list[Tensor] | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    phase: Phase = Phase.PREFILL
    reason: Literal["stop", "length"] = "stop"
    first_text_s: float | None = None  # since the request was complete
    first_audio_s: float | None = None
    error: DescantError | None = None  # why it failed
    underruns: int = 0  # times that a listener who plays in real time had nothing to hear
    prefilled: int = 0  # tokens read since the request was complete
    stage_s: dict[str, float] = field(default_factory=dict)  # seconds of each stage that this session was part of
    events: list[Event] = field(default_factory=list)  # that nobody has taken yet
    before: Usage = NO_USAGE  # of the requests whose answer this one goes on with

    @property
    def ended(self) -> bool:
        return self.phase in END_PHASES

    @property
    def late(self) -> list[Tensor]:
        """The ids, (K,) each, that were drawn for the text and for the speech, and that the host does not know yet."""
        streams = (self.text, self.speech)
        return [stream.late for stream in streams if stream is not None and stream.late is not None]

    @property
    def sounding(self) -> SpeechStream | None:
        """The speech whose sound is not all out yet."""
        over = self.ended or self.speech is None or self.speech.phase is SpeechPhase.DONE
        return None if over else self.speech

    def now(self) -> float:
        """Seconds since the request was complete."""
        return time.perf_counter() - self.clock

    def enter(self, phase: Phase) -> None:
        """The one transition function. Whoever ends gives back all that was lent to it, but a context that goes on."""
        if phase not in PHASES_AFTER[self.phase]:
            raise RuntimeError(f"a session in phase {self.phase.value} cannot enter {phase.value}")
        self.phase = phase
        if phase in END_PHASES:
            self.text.logits = self.text.late = None
            self.text.sampler.over = True
            if self.reply_states is None:
                self.context.free()
            if self.speech is not None:
                self.speech.release()

    def go_on_from(self, earlier: Session) -> None:
        """Make of this session the next part of an answer: its text, its sound and its counts go on."""
        self.before = usage_of(earlier)
        self.first_text_s = earlier.first_text_s
        self.first_audio_s = earlier.first_audio_s
        self.underruns = earlier.underruns
        self.prefilled = earlier.prefilled
        self.stage_s = earlier.stage_s
        self.text.pieces = earlier.text.pieces
        if self.speech is not None and earlier.speech is not None:
            self.speech.samples = earlier.speech.samples

    def drain_events(self) -> list[Event]:
        """Take the events that are new, and none of a cancelled session."""
        fresh = self.events
        self.events = []
        return [] if self.phase is Phase.CANCELLED else fresh

    def finish_if_done(self) -> None:
        """An answer is done when its text is complete and its sound, if any, is out."""
        if self.phase is Phase.SPEAKING and self.sounding is None:
            self.enter(Phase.DONE)


def split_seed(seed: int) -> tuple[int, int, int]:
    """One seed -> the seeds of text, codes and noise: three streams that do not follow each other's draws."""
    generator = torch.Generator().manual_seed(seed)
    text, speech, noise = torch.randint(2**62, (3,), generator=generator).tolist()
    return text, speech, noise


def usage_of(session: Session) -> Usage:
    """The counts of an answer, with those of the parts before this session."""
    text = session.text
    speech = session.speech
    before = session.before
    return Usage(
        prompt_tokens=before.prompt_tokens + len(session.context.tokens),
        prefilled_tokens=session.prefilled,
        text_tokens=before.text_tokens + len(text.ids),
        codes=before.codes + (len(speech.codes) if speech else 0),
        samples=speech.samples if speech else 0,
        underruns=session.underruns,
        text_cut=before.text_cut or session.reason == "length",
        speech_cut=before.speech_cut or (speech is not None and speech.cut),
        audio_tokens=before.audio_tokens + len(session.context.tokens.indices("audio")),
    )


def finished_event(session: Session) -> Finished:
    """The last event of a session."""
    usage = usage_of(session)
    total = session.now()
    seconds = usage.samples / OUTPUT_RATE_HZ
    timings = Timings(
        total,
        seconds,
        first_text_s=session.first_text_s,
        first_audio_s=session.first_audio_s,
        rtf=total / seconds if seconds else None,
        **{f"{stage}_s": spent for stage, spent in session.stage_s.items()},
    )
    reason: Literal["stop", "length"] = "length" if usage.text_cut or usage.speech_cut else "stop"
    return Finished("".join(session.text.pieces), reason, usage, timings, total, tuple(session.text.calls))
