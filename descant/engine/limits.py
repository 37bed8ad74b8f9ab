"""How much an engine may hold, and what it has lent out."""

from __future__ import annotations

from dataclasses import dataclass, field

from descant.engine.scheduler import Pace
from descant.engine.session import PAGE
from descant.types import CheckedOptions

Promise = tuple[int, int]  # pages of the Thinker's store and of the Talker's that somebody may come to need


@dataclass(frozen=True)
class Limits(CheckedOptions):
    """What an engine holds at most. tokens: of the Thinker's cache; rows: of the Talker's; sessions: answers that are
    being made; talks: live sessions; waiting: requests in the queue; unread: events that nobody has taken, after which
    an answer waits. threads: of the worker (None: as many as torch has where the engine is made; one for a small model,
    which two only slow down)."""

    tokens: int = 65536
    rows: int = 65536
    sessions: int = 32
    talks: int = 256
    waiting: int = 64
    unread: int = 4096
    page: int = PAGE
    pace: Pace = field(default_factory=Pace)
    threads: int | None = None

    def pages(self, tokens: int, rows: int) -> Promise:
        """What so many tokens of the Thinker and rows of the Talker fill."""
        return -(-tokens // self.page), -(-rows // self.page)


@dataclass(frozen=True)
class Ledger:
    """What is lent out. All zero when nobody is served and no live session is open."""

    sessions: int
    talks: int
    waiting: int
    thinker_pages: int
    talker_pages: int
    promised_thinker_pages: int
    promised_talker_pages: int
    codec_states: int
    encoder_rows: int

    @property
    def idle(self) -> bool:
        return not any(vars(self).values())
