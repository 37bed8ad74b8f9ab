"""A fault in, before or after any stage harms its session alone: the others answer as if it had not been there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from descant.engine import keeping
from descant.engine import stages as stages_module
from descant.engine.draws import DrawTable
from descant.engine.session import Session
from descant.engine.stages import Stages
from descant.errors import SessionError
from descant.model.codec import Token2Wav
from descant.types import AudioChunk, Event, TextDelta
from tests.engine import rig
from tests.engine.alone import stages_for
from tests.laws.test_engine import MODELS

SIZES = (1, 2, 4)
STEPS = 400
# where a fault is put: the object that has the function, its name, and how the sessions are found in its arguments
PLACES: dict[str, tuple[Any, str]] = {
    "read_chunks": (Stages, "read_chunks"),
    "keep_chunk": (stages_module, "keep_chunk"),
    "draw": (DrawTable, "draw"),
    "choose_token": (Stages, "choose_token"),
    "read_back": (Stages, "read_back"),
    "write": (stages_module, "emit_written"),
    "lay_input": (Stages, "lay_input"),
    "sing": (Stages, "sing"),
    "choose_code": (Stages, "choose_code"),
    "feed": (Stages, "feed"),
    "keep_state": (stages_module, "keep_state"),
    "keep_scores": (stages_module, "keep_scores"),
    "keep_draw": (keeping, "keep_draw"),
    "drawn_ids": (stages_module, "drawn_ids"),
    "keep_drawn": (stages_module, "keep_drawn"),
    "keep_sound": (Stages, "keep_sound"),
    "codec": (Token2Wav, "step"),
    "emit": (stages_module, "emit_audio"),
}

OF_A_RUN = (
    "lay_input",
    "sing",
    "keep_scores",
    "drawn_ids",
    "keep_drawn",
    "choose_code",
)  # where several codes are sung for one decision


def run(stages: Stages, sessions: Sequence[Session], codes: int = 1) -> list[list[Event]]:
    """Steps of all sessions together until all have ended, of at most so many codes; the events of each."""
    events: list[list[Event]] = [[] for _ in sessions]
    for _ in range(STEPS):
        stages.read({s: s.context.unread for s in sessions if s.phase.value == "prefill"})
        alive = [session for session in sessions if not session.ended]
        stages.think(alive)
        stages.talk(alive, codes)
        stages.decode([session for session in alive if not session.ended])
        for session, taken in zip(sessions, events, strict=True):
            session.finish_if_done()
            taken += session.drain_events()
        if all(session.ended for session in sessions):
            return events
    raise AssertionError("a session hangs")


def opened(stages: Stages, count: int) -> list[Session]:
    return [stages.open(rig.request(f"number {n}", seed=n)) for n in range(count)]


def heard(events: Sequence[Event]) -> tuple[str, np.ndarray]:
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    sound = [event.samples for event in events if isinstance(event, AudioChunk)]
    return text, np.concatenate([np.zeros(0, np.float32), *sound])


def concerns(victim: Session, arguments: tuple[Any, ...]) -> bool:
    """True if a call has something of the victim among its arguments, alone or in a group."""
    parts = [victim, victim.text, victim.speech, victim.text.sampler]
    parts += [] if victim.speech is None else [victim.speech.sampler, victim.speech.codec]
    flat = [x for a in arguments for x in (a if isinstance(a, list | tuple) else [a])]
    return any(x is part for x in flat for part in parts if part is not None)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("place", "codes"), [*((p, 1) for p in PLACES), *((p, 4) for p in OF_A_RUN)])
def test_a_fault_harms_its_session_alone(
    place: str, codes: int, when: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = stages_for(MODELS)
    wanted = [heard(events) for events in run(stages, opened(stages, size))]
    stages = stages_for(MODELS)
    sessions = opened(stages, size)
    victim = sessions[size // 2]
    home, name = PLACES[place]
    real: Callable[..., Any] = getattr(home, name)
    calls = 0
    spared = (
        0 if place in ("read_chunks", "keep_chunk", "draw") else 2
    )  # calls before the fault: a prompt is read in one

    def faulty(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        hit = concerns(victim, arguments)
        calls += hit
        if hit and calls > spared and when == "before":
            raise MemoryError("a fault")
        result = real(*arguments, **options)
        if hit and calls > spared and when == "after":
            raise MemoryError("a fault")
        return result

    monkeypatch.setattr(home, name, faulty)
    events = run(stages, sessions, codes)
    for session, got, want in zip(sessions, events, wanted, strict=True):
        if session is not victim:
            assert session.error is None
            text, sound = heard(got)
            assert text == want[0]
            np.testing.assert_allclose(sound, want[1], atol=1e-5)
    assert calls > spared, "the fault was never met"
    assert isinstance(victim.error, SessionError)
    assert "MemoryError" in str(victim.error)
    stages.stores.thinker.check([])
