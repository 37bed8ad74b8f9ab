"""The limits of an engine, and the ledger of what it has lent out."""

from __future__ import annotations

from dataclasses import dataclass, field

from descant.engine.models import PAGE_TOKENS
from descant.engine.scheduler import SchedulerConfig
from descant.engine.session import Request
from descant.types import CheckedOptions

Reservation = tuple[int, int]  # pages of the Thinker's store and of the Talker's that somebody may come to need


@dataclass(frozen=True)
class Limits(CheckedOptions):
    """The most that an engine holds. tokens: of the Thinker's cache; talker_tokens: of the Talker's; sessions: answers
    that are being made; live_sessions: open at once; waiting: requests in the queue; unread: events that nobody has
    taken, after which an answer waits; page: tokens of one page. threads: of the worker (None: as many as torch has
    where the engine is made; one for a small model, which two only slow down)."""

    tokens: int = 65536
    talker_tokens: int = 65536
    sessions: int = 32
    live_sessions: int = 256
    waiting: int = 64
    unread: int = 4096
    page: int = PAGE_TOKENS
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    threads: int | None = None

    def pages(self, tokens: int, talker_tokens: int) -> Reservation:
        """The pages that so many tokens of the Thinker and of the Talker fill."""
        return -(-tokens // self.page), -(-talker_tokens // self.page)


def most_tokens(request: Request) -> tuple[int, int]:
    """The most tokens of the Thinker and of the Talker that a request can come to hold."""
    prompt = len(request.prompt)
    settings = request.settings
    spoken = 0 if settings.voice is None else prompt + 1 + settings.speech.max_tokens
    return prompt + settings.text.max_tokens, spoken


@dataclass(frozen=True)
class Ledger:
    """The ledger of what is lent out. All zero when nobody is served and no live session is open."""

    sessions: int
    live_sessions: int
    waiting: int
    thinker_pages: int
    talker_pages: int
    reserved_thinker_pages: int
    reserved_talker_pages: int
    codec_states: int
    encoder_rows: int

    @property
    def idle(self) -> bool:
        return not any(vars(self).values())
