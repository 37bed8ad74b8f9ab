"""The engine's thread: what it is told, what runs on it, how it drains, and the end of the program."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from descant.engine.engine import Engine
from descant.engine.limits import Limits
from descant.engine.messages import CancelAnswer, Draft, UpdateDraft
from descant.engine.scheduler import SchedulerConfig
from descant.errors import SessionError
from descant.types import Finished, Image
from tests.engine import rig, talks
from tests.inputs import media

ROOT = Path(__file__).parents[2]
BEGIN = """
from descant.engine.engine import Engine
from tests.engine import rig

engine = Engine(rig.models())
engine.start()
"""


@pytest.mark.parametrize(
    "rest",
    ["", "list(engine.submit(rig.request()))", "answer = engine.submit(rig.request()); next(iter(answer))"],
    ids=["idle", "after an answer", "in the middle of one"],
)
def test_a_program_that_closes_nothing_ends(rest: str) -> None:
    """The engine is in a global's hand until the very end, and its thread must not be waited for in vain."""
    ended = subprocess.run([sys.executable, "-c", BEGIN + rest], cwd=ROOT, check=False, timeout=120)
    assert ended.returncode == 0


def test_a_close_in_the_middle_of_a_step_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step reads the inbox, and with it the word that is to wake the worker: it must not wait for another."""
    engine, closers = Engine(rig.models()), list[threading.Thread]()
    receive = engine.worker.receive

    def late() -> None:
        if not closers:
            closer = threading.Thread(target=engine.close, daemon=True)
            closer.start()
            while engine.worker.inbox.empty():
                time.sleep(0.001)
            closers.append(closer)
        receive()

    monkeypatch.setattr(engine.worker, "receive", late)
    engine.start()
    while not closers:
        time.sleep(0.001)
    closers[0].join(30)
    assert not closers[0].is_alive()


def test_nothing_of_a_model_runs_on_the_caller_s_thread() -> None:
    """Answers, a live session and a trace: every module is called by the worker."""
    threads: set[str] = set()
    hook = register_module_forward_pre_hook(lambda *_: threads.add(threading.current_thread().name))
    engine = Engine(rig.models())
    request = rig.request()  # its voice is prepared here, as ``load`` does
    threads.clear()
    try:
        engine.start()
        list(engine.submit(request))
        engine.trace(request)
        with talks.opened(engine) as session:
            session.push_audio(talks.NOISE, 16000)
            session.add(Image(media.picture(56, 56)))
            list(session.respond())
            session.truncate(0.1)
    finally:
        hook.remove()
    assert threads == {"descant-engine"}


def test_a_message_can_be_printed_and_compared() -> None:
    assert repr(CancelAnswer(3)) == "CancelAnswer(number=3)" and CancelAnswer(3) == CancelAnswer(3)
    assert "tensor" not in repr(UpdateDraft(1, Draft(rig.prompt())))


def test_a_step_handles_so_many_messages_and_no_more() -> None:
    """Who says much does not stop the others: their answer goes on a token a step."""
    engine = Engine(rig.models(), Limits(scheduler=SchedulerConfig(messages=4)))
    answer = engine.submit(rig.request(voice=None))
    for number in range(100):
        engine.cancel(1000 + number)
    engine.worker.step()
    assert engine.worker.inbox.qsize() == 101 - 4
    while not answer.record.over:
        engine.worker.step()
    assert not engine.worker.inbox.empty()
    assert isinstance([answer.events.get() for _ in range(answer.events.qsize())][-2], Finished)


@pytest.mark.parametrize("waiting", [1, 3])
def test_a_drained_engine_has_answered_all_and_takes_nothing_new(waiting: int) -> None:
    engine = Engine(rig.models(), Limits(sessions=1))
    with talks.opened(engine) as session:
        session.add("hello")
        answers = [engine.submit(rig.request(f"number {n}")) for n in range(waiting)]
        assert engine.drain(60)
        assert all(answer.record.complete for answer in answers)
        for ask in (lambda: engine.submit(rig.request()), session.respond, lambda: talks.opened(engine)):
            with pytest.raises(SessionError, match="draining"):
                ask()
    engine.close()
    assert engine.drain(60)  # nothing is left


def test_draining_says_when_it_took_too_long() -> None:
    """A reader who takes nothing stops the writing, and so the end."""
    engine = Engine(rig.models(), Limits(unread=1))
    answer = engine.submit(rig.request())
    assert not engine.drain(0.05)
    assert isinstance(list(answer)[-1], Finished)
    assert engine.drain(60)


def test_a_trace_that_fails_says_so_and_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(rig.models())
    with monkeypatch.context() as patch:
        patch.setattr(rig.models().thinker, "logits", broken)
        with pytest.raises(SessionError, match="no trace"):
            engine.trace(rig.request())
    assert isinstance(list(engine.submit(rig.request()))[-1], Finished)


def broken(hidden: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("no trace")
