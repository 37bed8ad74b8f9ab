"""The table from end to end, with a model that answers as it is told and ears that hear what was said."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from descant.evals import report, tasks
from descant.evals.report import ResultLine
from descant.types import AudioChunk, Event, Finished, Message, Timings, Usage

Reply = Callable[[Message], str]


class Oracle:
    """Answers every question as ``reply`` says; its voice is one sample a letter."""

    speaks = True

    def __init__(self, reply: Reply) -> None:
        self.reply = reply

    def chat(self, messages: list[Message], *, speech: bool = True, seed: int = 0) -> Iterator[Event]:
        text = self.reply(messages[0])
        if speech:
            yield AudioChunk(np.array([ord(c) for c in text], np.float32), 0, 24_000, 0.0)
        yield Finished(text, "stop", Usage(1, 1, 1), Timings(0.0), 0.0)


class Reader:
    """An ear that reads the letters back, and misses the last word of what is not the teacher's."""

    name = "whisper-tiny.en"

    def hear(self, samples: np.ndarray, rate: int) -> str:
        text = "".join(chr(int(c)) for c in samples)
        return text.removeprefix("!") if text.startswith("!") else text.rsplit(" ", 1)[0]


class SecondReader(Reader):
    name = "pocketsphinx"


class Teacher:
    def speak(self, text: str) -> tuple[np.ndarray, None]:
        return np.array([ord(c) for c in "!" + text], np.float32), None


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """The right answer of every question that the rows made, by the question's identity."""
    pytest.importorskip("jiwer", reason="the eval extra is optional")
    known: dict[int, str] = {}
    kept = []
    real = tasks.TaskRow.items

    def remember(row: tasks.TaskRow, count: int, seed: int) -> list[tasks.EvalItem]:
        items = real(row, count, seed)
        kept.extend(items)  # so that no identity is used twice
        known.update({id(item.question): item.expected for item in items})
        return items

    monkeypatch.setattr(tasks.TaskRow, "items", remember)
    monkeypatch.setattr(tasks, "synthesise", lambda text, voice: np.full(len(text), 0.1, np.float32))
    monkeypatch.setattr(report, "check_programs", lambda names: None)
    monkeypatch.setattr(report, "WhisperEar", Reader)
    monkeypatch.setattr(report, "SphinxEar", SecondReader)
    monkeypatch.setattr(report, "Flite", Teacher)
    return known


def table(reply: Reply, out: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, ResultLine]:
    monkeypatch.setattr(report.omnis, "load", lambda name: Oracle(reply))
    monkeypatch.setattr(report, "wide_speaking", lambda run: [])
    lines = report.run_evaluation("oracle", out, samples=20, seed=3, groups=("first", "speech"))
    return {line.name: line for line in lines}


def test_a_model_that_knows_every_answer_meets_every_bar_and_fails_the_controls(
    answers: dict[int, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = table(lambda question: answers[id(question)], tmp_path, monkeypatch)
    for row in tasks.TASK_ROWS:
        line = lines[row.name]
        assert line.value == 100
        assert line.met is (False if row.control else None if row.bar is None else True)
    mixed = [line for name, line in lines.items() if name.startswith("control: shuffled")]
    assert len(mixed) == 4 and all(line.value < 40 for line in mixed)
    spoken = lines["spoken answers: word error above the floor (whisper-tiny.en)"]
    assert 10 < spoken.value < 60 and spoken.met is False and "floor on the teacher's true voice 0.0 %" in spoken.note
    assert lines["spoken answers: word error above the floor (pocketsphinx)"].met is None
    kept = json.loads((tmp_path / "results.json").read_text())
    assert kept["model"] == "oracle" and len(kept["rows"]) == len(lines)
    text = (tmp_path / "table.md").read_text()
    assert all(f"| {name} |" in text for name in lines)


def test_a_model_that_knows_nothing_meets_no_bar(
    answers: dict[int, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = table(lambda question: "I do not know.", tmp_path, monkeypatch)
    for row in tasks.TASK_ROWS:
        assert lines[row.name].value == 0
        assert lines[row.name].met is (True if row.control else None if row.bar is None else False)
