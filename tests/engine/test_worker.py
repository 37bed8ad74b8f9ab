"""The engine's thread and the end of the program."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from descant.engine.engine import Engine
from tests.engine import rig

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
    listen = engine.listen

    def late() -> None:
        if not closers:
            closer = threading.Thread(target=engine.close, daemon=True)
            closer.start()
            while engine.inbox.empty():
                time.sleep(0.001)
            closers.append(closer)
        listen()

    monkeypatch.setattr(engine, "listen", late)
    engine.start()
    while not closers:
        time.sleep(0.001)
    closers[0].join(30)
    assert not closers[0].is_alive()
