"""The boundary of a request: what goes wrong inside ends the sessions that it belongs to, and no other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

import torch

from descant.engine.session import Phase, Session
from descant.errors import DescantError, SessionError

log = logging.getLogger(__name__)


def attempt(act: Callable[[], object]) -> Exception | None:
    """The request boundary: what ``act`` failed with, or None."""
    try:
        with torch.inference_mode():
            act()
    except Exception as error:  # whatever went wrong belongs to one session alone
        return error
    return None


def together(sessions: Sequence[Session], act: Callable[[Sequence[Session]], None]) -> list[Session]:
    """``act`` on all sessions at once; where that fails, on each alone; who fails alone ends. Returns the others."""
    error = attempt(lambda: act(sessions)) if sessions else None
    if error is not None and len(sessions) == 1:
        fail_session(sessions[0], error)
    elif error is not None:
        for session in sessions:
            together([session], act)
    return [session for session in sessions if not session.ended]


def each(sessions: Iterable[Session], act: Callable[[Session], None]) -> list[Session]:
    """``act`` on each session; who fails ends. Returns the others."""
    return [alive for session in sessions for alive in together([session], lambda group: act(group[0]))]


def fail_session(session: Session, error: Exception) -> None:
    """End a session with the error that its user gets."""
    if not session.ended:
        session.error = as_session_error(error, session.phase.value, session.id)
        session.enter(Phase.FAILED)


def as_session_error(error: Exception, doing: str, session: str) -> DescantError:
    """The error that a user gets; what is not ours is logged and wrapped. doing: the phase that failed."""
    if isinstance(error, DescantError):
        return error
    log.error("session %s failed in phase %s", session, doing, exc_info=error)
    reason = f"{type(error).__name__}: {error}"
    wrapped = SessionError(f"failed while {doing}: {reason}. The model is unharmed; ask again")
    wrapped.__cause__ = error
    return wrapped
