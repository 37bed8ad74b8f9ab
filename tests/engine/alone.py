"""An answer that has the model to itself: the stages in order, without an engine; every schedule is held against it."""

from __future__ import annotations

from collections.abc import Iterator

from descant.engine.limits import most_tokens
from descant.engine.models import Models, new_stores
from descant.engine.session import Phase, Request, Session, finished_event
from descant.engine.stages import Stages
from descant.types import Event


def stages_for(models: Models, tokens: int = 4000) -> Stages:
    """Stages over stores of their own."""
    return Stages(models, new_stores(models, tokens, tokens))


def stream(models: Models, request: Request) -> Iterator[Event]:
    """The events of one answer, made while they are iterated."""
    stages = Stages(models, new_stores(models, *most_tokens(request)))
    return run(stages, stages.open(request))


def run(stages: Stages, session: Session) -> Iterator[Event]:
    """All steps of one session; closing the iterator cancels it."""
    try:
        while not session.ended:
            step(stages, session)
            yield from session.drain_events()
        if session.error is not None:
            raise session.error
        yield finished_event(session)
    finally:
        if not session.ended:
            session.enter(Phase.CANCELLED)


def step(stages: Stages, session: Session) -> None:
    if session.phase is Phase.PREFILL:
        stages.read({session: session.context.unread})
    stages.think([session])
    stages.talk([session])
    stages.decode([session])
    session.finish_if_done()
