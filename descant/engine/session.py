"""One request, as data: everything that changes while an answer is made lives in ``Session``; the modules are pure.

```
LISTENING --> PREFILL --> THINKING --> SPEAKING --> DONE
   |             |            |            |
   +-------------+------------+------------+---> CANCELLED | FAILED
```
LISTENING: a live session between two answers; what its user says is read, and nothing is asked yet. THINKING: the
Thinker still writes (the Talker already sings along). SPEAKING: the text is complete, the Talker runs on.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from descant.engine.context import Context
from descant.engine.graphs import Mode, Steps
from descant.engine.sampling import Choose, Sampler
from descant.errors import DescantError, OptionError
from descant.inputs.tokenizer import Incremental, Tokenizer
from descant.model.codec import CodecState, Token2Wav
from descant.model.decoder import Decoder
from descant.model.talker import Talker, tail_rows
from descant.model.thinker import Thinker
from descant.nn.pages import Pages, Table
from descant.tokens import PromptTokens
from descant.types import Decoding, Event, Finished, Sampling, Timings, Usage, Voice

NO_VOICE = "this model has no voice: it comes without a Talker; ask with speech=False"
RATE = 24000  # Hz, the sound that leaves every vocoder of this family


class Phase(Enum):
    LISTENING = "listening"
    PREFILL = "prefill"
    THINKING = "thinking"
    SPEAKING = "speaking"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


ENDS = frozenset({Phase.DONE, Phase.CANCELLED, Phase.FAILED})
NEXT: Mapping[Phase, frozenset[Phase]] = {
    Phase.LISTENING: frozenset({Phase.CANCELLED, Phase.FAILED}),
    Phase.PREFILL: frozenset({Phase.THINKING, Phase.CANCELLED, Phase.FAILED}),
    Phase.THINKING: frozenset({Phase.SPEAKING, Phase.DONE, Phase.CANCELLED, Phase.FAILED}),
    Phase.SPEAKING: frozenset({Phase.DONE, Phase.CANCELLED, Phase.FAILED}),
    **{end: frozenset() for end in ENDS},
}


@dataclass(frozen=True)
class Models:
    """The weights and the tokenizer: read-only, shared by every session."""

    thinker: Thinker
    talker: Talker | None
    token2wav: Token2Wav | None
    tokenizer: Tokenizer
    stop_ids: frozenset[int]  # text ids that end an answer
    stop_codes: frozenset[int] = frozenset()
    banned_codes: frozenset[int] = frozenset()  # never drawn
    graphs: Mode | None = None  # how decode steps run; None: as CUDA graphs where there is CUDA

    @cached_property
    def steps(self) -> Steps:
        return Steps(self.thinker, self.talker, self.graphs)


@dataclass(frozen=True)
class Request:
    """What is asked, complete and checked. voice None: text only. forced: the ids of the reply, instead of drawing.
    tenant: whose pages of the cache it may share."""

    prompt: PromptTokens
    text: Sampling
    speech: Sampling
    decoding: Decoding
    seed: int
    voice: Voice | None = None
    forced: tuple[int, ...] | None = None
    clock: float = field(default_factory=time.perf_counter)  # when the request was complete, seconds
    tenant: str = ""


@dataclass
class Thought:
    """The Thinker's half. logits (V,): from which the next id is chosen."""

    choose: Choose
    writer: Incremental
    cache: Table
    logits: Tensor | None = None
    ids: list[int] = field(default_factory=list)  # without the stop id
    pieces: list[str] = field(default_factory=list)


@dataclass
class Speech:
    """The Talker's half and the codec's. rows: reply rows h + e, (E,) each, that wait to be eaten, one per code.
    feed (T, E): what the Talker reads next: its first two rows at once, then one for each code. logits (C,): from which
    the next code is chosen."""

    voice: Voice
    choose: Choose
    cache: Table
    codec: CodecState
    tail: Tensor  # (2, E): the text_end row, the text_pad row
    rows: deque[Tensor] = field(default_factory=deque)
    feed: Tensor | None = None
    logits: Tensor | None = None
    ended: bool = False  # the text_end row has been eaten; from here on text_pad rows
    codes: list[int] = field(default_factory=list)  # without the stop code
    over: bool = False  # no more codes: a stop code, the limit, or nothing to say
    pushed: int = 0  # codes that the codec decoder has
    drained: bool = False  # and its last sound is out
    samples: int = 0  # emitted so far


@dataclass
class Session:
    """One request on its way. ``speech`` is None when only text is asked for.

    kept: the row (D,) of every token that the Thinker read back, for a conversation that goes on with this context
    after the answer; None: the context ends with it.
    """

    request: Request
    context: Context
    thought: Thought
    speech: Speech | None
    kept: list[Tensor] | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    phase: Phase = Phase.PREFILL
    reason: Literal["stop", "length"] = "stop"
    first_text: float | None = None  # seconds since the request was complete
    first_audio: float | None = None
    error: DescantError | None = None  # why it failed
    underruns: int = 0  # times that a listener who plays in real time had nothing to hear
    prefilled: int = 0  # rows read since the request was complete
    spent: dict[str, float] = field(default_factory=dict)  # seconds of each stage that this session was part of
    out: list[Event] = field(default_factory=list)  # events that nobody has taken yet

    @property
    def ended(self) -> bool:
        return self.phase in ENDS

    def now(self) -> float:
        return time.perf_counter() - self.request.clock

    def enter(self, phase: Phase) -> None:
        """The one transition function. Whoever ends gives back all that was lent to it, but a context that goes on."""
        if phase not in NEXT[self.phase]:
            raise RuntimeError(f"a session in phase {self.phase.value} cannot enter {phase.value}")
        self.phase = phase
        if phase in ENDS:
            self.thought.logits = None
            if self.kept is None:
                self.context.free()
            if self.speech is not None:
                self.speech.rows.clear()
                self.speech.feed = self.speech.logits = None


def seeds(seed: int) -> tuple[int, int, int]:
    """One seed -> the seeds of text, codes and noise: three streams that do not follow each other's draws."""
    generator = torch.Generator().manual_seed(seed)
    text, speech, noise = torch.randint(2**62, (3,), generator=generator).tolist()
    return text, speech, noise


class Forced:
    """A token source that recites ``ids`` and then stops; what the model would have drawn does not matter."""

    def __init__(self, ids: tuple[int, ...], stop: int) -> None:
        self._rest = iter((*ids, stop))

    def __call__(self, logits: Tensor) -> Tensor:
        return torch.tensor(next(self._rest), device=logits.device)


@dataclass(frozen=True)
class Stores:
    """Where the sessions of one engine keep their pasts. talker None: a model without a voice."""

    thinker: Pages
    talker: Pages | None


PAGE = 16  # tokens


def new_stores(models: Models, tokens: int, codes: int, page: int = PAGE) -> Stores:
    """Empty stores with room for so many tokens of the Thinker, and rows of the Talker; they grow as they are used."""

    def store(decoder: Decoder, room: int) -> Pages:
        cfg, like = decoder.cfg, decoder.embed_tokens.weight
        size = cfg.num_hidden_layers, cfg.num_key_value_heads, cfg.head_dim
        return Pages(*size, size=page, limit=-(-room // page), like=like)

    talker = None if models.talker is None else store(models.talker.decoder, codes)
    return Stores(store(models.thinker.decoder, tokens), talker)


def room(request: Request) -> tuple[int, int]:
    """The most tokens of the Thinker and rows of the Talker that a request can come to hold."""
    prompt = len(request.prompt)
    spoken = 0 if request.voice is None else prompt + 1 + request.speech.max_tokens
    return prompt + request.text.max_tokens, spoken


def new_context(stores: Stores, *, speech: bool, tenant: str = "") -> Context:
    """An empty context with tables of its own."""
    if speech and stores.talker is None:
        raise OptionError(NO_VOICE)
    return Context(Table(stores.thinker), Table(stores.talker) if speech and stores.talker else None, tenant)


def open_session(models: Models, request: Request, stores: Stores | None = None) -> Session:
    """A new session in phase PREFILL; stores None: its own."""
    stores = stores or new_stores(models, *room(request))
    context = new_context(stores, speech=request.voice is not None, tenant=request.tenant)
    context.set_tokens(request.prompt)
    return session_in(models, request, context, start_codec(models, request))


def session_in(models: Models, request: Request, context: Context, codec: CodecState | None) -> Session:
    """A new session in phase PREFILL, over a context whose rows are laid out; the last of them is still to be read."""
    context.reopen()
    text_seed, speech_seed, _ = seeds(request.seed)
    thinker, talker = models.thinker, models.talker
    choose: Choose
    if request.forced is None:
        vocab, prompt = thinker.cfg.text.vocab_size, context.tokens.ids.to(thinker.device)
        choose = Sampler(request.text, vocab_size=vocab, seed=text_seed, prompt=prompt)
    else:
        choose = Forced(request.forced, min(models.stop_ids))
    thought = Thought(choose, models.tokenizer.incremental(), context.thinker_kv)
    if codec is None or talker is None or request.voice is None or context.talker_kv is None:
        return Session(request, context, thought, None)
    choose = Sampler(
        request.speech,
        vocab_size=talker.cfg.decoder.vocab_size,
        seed=speech_seed,
        prompt=codec_ids(talker, len(context.tokens)),
        banned=models.banned_codes,
    )
    with torch.inference_mode():
        tail = tail_rows(thinker, talker.cfg)
    return Session(request, context, thought, Speech(request.voice, choose, context.talker_kv, codec, tail))


def start_codec(models: Models, request: Request) -> CodecState | None:
    """A fresh stream of sound, for a request with a voice. It does not depend on the prompt."""
    if request.voice is None:
        return None
    if models.talker is None or models.token2wav is None:
        raise OptionError(NO_VOICE)
    with torch.inference_mode():
        return models.token2wav.start(request.voice, seeds(request.seed)[2], request.decoding)


def listening(models: Models, request: Request, context: Context) -> Session:
    """A live session between two answers: rows are read as they come."""
    thought = Thought(Forced((), min(models.stop_ids)), models.tokenizer.incremental(), context.thinker_kv)
    return Session(request, context, thought, None, kept=[], phase=Phase.LISTENING)


def codec_ids(talker: Talker, length: int) -> Tensor:
    """The ids that the Talker's repetition penalty takes for its prompt, (P + 2,): P masks, pad, start."""
    cfg = talker.cfg
    return torch.tensor([cfg.codec_mask_id] * length + [cfg.codec_pad_id, cfg.codec_start_id], device=talker.device)


def codes_beyond_table(talker: Talker, token2wav: Token2Wav, stops: frozenset[int]) -> frozenset[int]:
    """Ids that the Talker could draw but the DiT has no row for, and that stop nothing (the reference would crash)."""
    return frozenset(range(token2wav.cfg.dit.num_embeds + 1, talker.cfg.decoder.vocab_size)) - stops


def finished(session: Session) -> Finished:
    """The last event of a session."""
    text, speech = session.thought, session.speech
    total = session.now()
    samples = speech.samples if speech else 0
    seconds = samples / RATE
    timings = Timings(
        total,
        seconds,
        first_text_s=session.first_text,
        first_audio_s=session.first_audio,
        rtf=total / seconds if samples else None,
        **{f"{stage}_s": spent for stage, spent in session.spent.items()},
    )
    usage = Usage(
        prompt_tokens=len(session.context.tokens),
        prefilled_tokens=session.prefilled,
        text_tokens=len(text.ids),
        codes=len(speech.codes) if speech else 0,
        samples=samples,
        underruns=session.underruns,
    )
    return Finished("".join(text.pieces), session.reason, usage, timings, total)
