"""The engine's thread and the end of the program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
