"""The demo's own logic, with a stand-in for the model: the report, the table, and when it fails."""

from __future__ import annotations

import json
import wave
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from descant.cli import demo
from descant.types import Audio, AudioChunk, Event, Image, Text, Video
from tests.stub import StubOmni

KEYS = {"question", "text", "expected", "wav", "first_text_s", "first_audio_s", "audio_s", "rtf"}


class Pupil(StubOmni):
    """Knows the right answers. The numbers of one it gets wrong, one it does not say, and one it says in silence."""

    wrong = mute = hush = -1

    def chat(self, messages: Any, **options: Any) -> Iterator[Event]:
        place = len(self.calls)
        self.text = "It was beige." if place == self.wrong else demo.questions()[place].expected
        self.calls.append((list(messages), options))
        events = self.events(speech=place != self.mute)
        return (silenced(event) for event in events) if place == self.hush else events


def silenced(event: Event) -> Event:
    return replace(event, samples=event.samples * 0) if isinstance(event, AudioChunk) else event


@pytest.fixture
def pupil(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Pupil:
    stub = Pupil()
    monkeypatch.setattr("descant.omni.load", lambda name: stub)
    monkeypatch.chdir(tmp_path)
    return stub


def test_six_right_answers(pupil: Pupil, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main() == 0
    rows = json.loads(Path("out/demo/report.json").read_text())["questions"]
    assert len(rows) == 6 and all(set(row) == KEYS for row in rows)
    for row in rows:
        with wave.open(row["wav"]) as file:
            assert file.getnframes() / file.getframerate() == pytest.approx(row["audio_s"], abs=1e-3)
        assert row["text"] == row["expected"] and row["first_audio_s"] >= row["first_text_s"] >= 0
    out = capsys.readouterr().out
    assert all(row["text"] in out for row in rows) and "What to try next" in out


def test_it_works_twice_in_a_row(pupil: Pupil) -> None:
    assert demo.main() == 0
    pupil.calls.clear()
    assert demo.main() == 0


def test_a_wrong_answer_fails(pupil: Pupil, capsys: pytest.CaptureFixture[str]) -> None:
    pupil.wrong = 2
    assert demo.main() == 1
    assert "got 'It was beige.'" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["mute", "hush"])
def test_a_silent_answer_fails(pupil: Pupil, capsys: pytest.CaptureFixture[str], fault: str) -> None:
    setattr(pupil, fault, 3)
    assert demo.main() == 1
    assert "video: no audible speech" in capsys.readouterr().err


def test_the_questions_use_every_sense_and_files_that_are_shipped() -> None:
    asked = [{type(part) for part in q.message.content} for q in demo.questions()]
    assert asked == [{Text}, {Image, Audio}, {Audio, Text}, {Video, Text}, {Audio}, {Text}]
    for question in demo.questions():
        for part in question.message.content:
            assert isinstance(part, Text) or Path(str(part.source)).is_file()


def test_spelling_counts_and_capitals_do_not() -> None:
    assert demo.plain("Seven plus five is twelve.") == demo.plain("seven plus five, is TWELVE")
    assert demo.plain("It was red.") != demo.plain("It was bred.")


def test_the_last_question_goes_on_from_the_answer_before(pupil: Pupil) -> None:
    demo.main()
    messages = [call[0] for call in pupil.calls]
    assert [len(asked) for asked in messages] == [1, 1, 1, 1, 1, 3]
    assert [message.role for message in messages[5]] == ["user", "assistant", "user"]
    assert messages[5][0] == messages[4][0]
    assert messages[5][1].content == (Text("Nine minus four is five."),)
