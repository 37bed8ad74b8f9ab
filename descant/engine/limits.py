"""The limits of an engine, and the ledger of what it has lent out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from descant.checks import CheckedOptions
from descant.engine.models import PAGE_TOKENS
from descant.engine.scheduler import SchedulerConfig
from descant.engine.session import Request
from descant.errors import OptionError, shortened

Reservation = tuple[int, int]  # pages of the Thinker's store and of the Talker's that somebody may come to need


@dataclass(frozen=True)
class Limits(CheckedOptions):
    """The most that an engine holds. tokens: of the Thinker's cache; talker_tokens: of the Talker's; sessions: answers
    that are being made; live_sessions: open at once; waiting: requests in the queue; asks: of one live session that the
    worker has not seen; unread: events that nobody has taken, after which an answer waits; unread_s: seconds that it
    waits before it ends with a SessionError; page: tokens of one page. threads: of the worker (None: as many as torch
    has where the engine is made; one for a small model, which two only slow down)."""

    tokens: int = 65536
    talker_tokens: int = 65536
    sessions: int = 32
    live_sessions: int = 256
    waiting: int = 64
    unread: int = 4096
    page: int = PAGE_TOKENS
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    threads: int | None = None
    unread_s: float = 30.0
    asks: int = 4

    BOUNDS: ClassVar[Mapping[str, tuple[float, float]]] = {
        "tokens": (1, 2**40),
        "talker_tokens": (1, 2**40),
        "sessions": (1, 2**16),
        "live_sessions": (1, 2**20),
        "waiting": (1, 2**20),
        "asks": (1, 2**10),
        "unread": (1, 2**20),
        "unread_s": (0, 2**20),
        "page": (1, 2**12),
        "threads": (1, 2**10),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.scheduler, SchedulerConfig):
            raise OptionError(f"Limits: scheduler={shortened(self.scheduler)}; write a SchedulerConfig")

    @property
    def store_sizes(self) -> tuple[int, int, int]:
        """Tokens of the Thinker's store and of the Talker's, and tokens of a page."""
        return self.tokens, self.talker_tokens, self.page

    def pages(self, tokens: int, talker_tokens: int) -> Reservation:
        """The pages that so many tokens of the Thinker and of the Talker fill."""
        return -(-tokens // self.page), -(-talker_tokens // self.page)


def fitted(request: Request, context: int, talker_context: int) -> Request:
    """A request whose answer ends where the contexts of its models do. context, talker_context: their tokens.

    OptionError: its prompt leaves no room for an answer, or for the text that is to be read aloud.
    """
    settings = request.settings
    prompt = len(request.prompt)
    least = 1 if settings.forced is None else len(settings.forced) + 1
    left = context - prompt
    codes_left = talker_context - prompt - 1 if settings.voice is not None else settings.speech.max_tokens
    if left < least or codes_left < 1:
        raise OptionError(
            f"a prompt of {prompt:,} tokens leaves no room for an answer in a context of "
            f"{min(context, talker_context):,}; shorten it, or the sounds and videos in it"
        )
    text = replace(settings.text, max_tokens=min(settings.text.max_tokens, left))
    speech = replace(settings.speech, max_tokens=min(settings.speech.max_tokens, codes_left))
    return replace(request, settings=replace(settings, text=text, speech=speech))


def most_tokens(request: Request) -> tuple[int, int]:
    """The most tokens of the Thinker and of the Talker that a request can come to hold."""
    prompt = len(request.prompt)
    settings = request.settings
    spoken = 0 if settings.voice is None else prompt + 1 + settings.speech.max_tokens
    return prompt + settings.text.max_tokens, spoken


@dataclass(frozen=True)
class Ledger:
    """The ledger of what is lent out, all zero when nobody is served and no live session is open; and eager_buckets:
    what runs more slowly than it was to, as ``Engine.step_faults`` says."""

    sessions: int
    live_sessions: int
    waiting: int
    thinker_pages: int
    talker_pages: int
    reserved_thinker_pages: int
    reserved_talker_pages: int
    codec_states: int
    encoder_rows: int
    draw_rows: int = 0
    eager_buckets: int = 0

    @property
    def idle(self) -> bool:
        return not any(count for name, count in vars(self).items() if name != "eager_buckets")
