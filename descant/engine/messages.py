"""Messages of other threads to the engine's worker. Each is handled before a step begins; about what is gone, none is.

Finalizers speak too, in the middle of anything: posting a message takes no lock.
"""

from __future__ import annotations

import threading
import weakref
from concurrent.futures import Future
from dataclasses import dataclass, field

from torch import Tensor

from descant.engine.answer import Answer
from descant.engine.conversation import Arrangement, Entry
from descant.engine.limits import Reservation
from descant.engine.session import AnswerSettings, Request
from descant.tokens import PromptTokens


@dataclass
class Draft:
    """One turn while it is made: what the worker has not seen of it, replaced by whatever comes later."""

    tokens: PromptTokens | None = None


@dataclass
class SessionMail:
    """The mail of a live session that the worker has not seen; both hold the worker's lock where they touch it.

    draft: of the turn that is being made; asks: the turns that are to be answered.
    """

    draft: Draft = field(default_factory=Draft)
    asks: int = 0

    def drop_draft(self) -> None:
        """The turn that was being made is complete: what comes now is of the next one."""
        self.draft.tokens = None
        self.draft = Draft()


@dataclass(frozen=True)
class Submit:
    """Answer a request. reservation: the pages that it may come to need."""

    answer: weakref.ref[Answer] = field(repr=False)
    number: int
    request: Request
    reservation: Reservation


@dataclass(frozen=True)
class CancelAnswer:
    """An answer is not wanted any more."""

    number: int


@dataclass(frozen=True)
class OpenSession:
    """Open a live session. system: what stands before the conversation; around: opening and closing of a reply.

    max_tokens: of context; drop: whether the oldest turns make room, or the answer is refused.
    """

    session: int
    settings: AnswerSettings
    system: PromptTokens = field(repr=False)
    around: tuple[PromptTokens, PromptTokens] = field(repr=False)
    max_tokens: int
    drop: bool


@dataclass(frozen=True)
class UpdateDraft:
    """The turn that a live session is making has changed."""

    session: int
    draft: Draft = field(repr=False)


@dataclass(frozen=True)
class Ask:
    """The turn of a live session is complete: answer it. clock: when it was, seconds of ``time.perf_counter``.

    turn: None where nothing was said anew; system: the system turn of this answer alone (None: the session's).
    """

    session: int
    answer: weakref.ref[Answer] = field(repr=False)
    number: int
    turn: Entry | None
    settings: AnswerSettings
    clock: float
    system: PromptTokens | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Arrange:
    """Change what a live session has said so far."""

    session: int
    arrangement: Arrangement


@dataclass(frozen=True)
class TruncateReply:
    """Of the reply of an answer, its listener heard only the first ``characters``."""

    session: int
    number: int
    characters: int


@dataclass(frozen=True)
class CloseSession:
    """A live session is over."""

    session: int


@dataclass(frozen=True)
class RunTrace:
    """Make a deterministic pass, written down; see ``engine.trace``. It runs by itself, between two steps."""

    request: Request
    result: Future[dict[str, Tensor]] = field(repr=False)


@dataclass(frozen=True)
class Drain:
    """Say when nothing is being answered and nothing waits."""

    drained: threading.Event = field(repr=False)


@dataclass(frozen=True)
class Wake:
    """Look up: the engine may be closed."""


WorkerMessage = (
    Submit
    | CancelAnswer
    | OpenSession
    | UpdateDraft
    | Ask
    | Arrange
    | TruncateReply
    | CloseSession
    | RunTrace
    | Drain
    | Wake
)
