"""The boundary of a request: what goes wrong inside ends the sessions that it belongs to, and no other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

import torch

from descant.engine.session import Phase, Session
from descant.errors import DescantError, SessionError

log = logging.getLogger(__name__)
Result = TypeVar("Result")


def attempt(act: Callable[[], object]) -> Exception | None:
    """The request boundary: what ``act`` failed with, or None."""
    try:
        with torch.inference_mode():
            act()
    except Exception as error:  # whatever went wrong belongs to one session alone
        return error
    return None


def together(
    sessions: Sequence[Session],
    compute: Callable[[Sequence[Session]], Iterable[Result]],
    commit: Callable[[Session, Result], object],
) -> list[Session]:
    """``compute`` over all sessions at once, then ``commit`` of each one's result; who fails ends. Returns the others.

    compute moves no state, so that a pass that fails is made again for each session alone; commit moves that of its
    session alone, and is never repeated.
    """
    results: dict[Session, Result] = {}
    error = attempt(lambda: results.update(zip(sessions, compute(sessions), strict=True))) if sessions else None
    if error is not None and len(sessions) == 1:
        fail_session(sessions[0], error)
    elif error is not None:
        for session in sessions:
            together([session], compute, commit)
    else:
        each(results, lambda session: commit(session, results[session]))
    return [session for session in sessions if not session.ended]


def each(sessions: Iterable[Session], act: Callable[[Session], object]) -> list[Session]:
    """``act`` on each session; who fails ends. Returns the others."""
    alive = []
    for session in sessions:
        error = attempt(partial(act, session))
        if error is not None:
            fail_session(session, error)
        if not session.ended:
            alive.append(session)
    return alive


def fail_session(session: Session, error: Exception) -> None:
    """End a session with the error that its user gets."""
    if not session.ended:
        session.error = as_session_error(error, session.phase.value, session.id)
        session.enter(Phase.FAILED)


def as_session_error(error: Exception, doing: str, session: str) -> DescantError:
    """The error that a user gets; what is not ours is logged and wrapped. doing: the phase that failed."""
    if isinstance(error, DescantError):
        return error
    if isinstance(error, torch.OutOfMemoryError):
        torch.cuda.empty_cache()  # what is kept for tensors of other sizes may be what is missing
        log.error("session %s found the memory full in phase %s: %s", session, doing, error)
        return SessionError(
            f"the device ran out of memory while {doing}; ask with less, or load with smaller limits "
            "(descant inspect MODEL --plan says what fits)"
        )
    log.error("session %s failed in phase %s", session, doing, exc_info=error)
    reason = f"{type(error).__name__}: {error}"
    wrapped = SessionError(f"failed while {doing}: {reason}. The model is unharmed; ask again")
    wrapped.__cause__ = error
    return wrapped
