"""An answer that has the model to itself: the stages in order, without an engine; every schedule is held against it."""

from __future__ import annotations

from collections.abc import Iterator

from descant.engine.loop import decode, fenced, read, settle, take, talk, think
from descant.engine.session import Models, Phase, Request, Session, finished, open_session
from descant.types import Event


def stream(models: Models, request: Request) -> Iterator[Event]:
    """The events of one answer, made while they are iterated."""
    return run(models, open_session(models, request))


def run(models: Models, session: Session) -> Iterator[Event]:
    """All steps of one session; closing the iterator cancels it."""
    try:
        while not session.ended:
            step(models, session)
            yield from take(session)
        if session.error is not None:
            raise session.error
        yield finished(session)
    finally:
        if not session.ended:
            session.enter(Phase.CANCELLED)


def step(models: Models, session: Session) -> None:
    if session.phase is Phase.PREFILL:
        fenced([[session]], lambda group: read(models, group[0]))
    think(models, [session])
    talk(models, [session])
    decode(models, [session])
    settle(session)
