# ruff: noqa: F811 - a fixture of another file
"""The commands of a talk: what is taken back, asked again, heard again and drawn anew."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from descant.cli.errors import run
from descant.types import Event, Image, Text
from tests.stub import StubOmni
from tests.test_cli import omni, put, talk  # noqa: F401 - a fixture
from tests.test_player import install


def asked(omni: StubOmni, call: int) -> list[object]:
    """All that stood in the conversation when an answer was asked for."""
    return [part for message in omni.calls[call][0] for part in message.content]


def test_what_is_undone_was_never_said(omni: StubOmni, monkeypatch: pytest.MonkeyPatch) -> None:
    put("a.png")
    assert talk(monkeypatch, "One", "/image a.png", "Two", "/undo", "Three", "/save kept", options="--no-speech") == 0
    assert asked(omni, 2) == [Text("One"), Text(omni.text), Text("Three")]
    saved = json.loads(Path("kept/talk.json").read_text())
    assert [turn["content"][0]["text"] for turn in saved] == ["One", omni.text, "Three", omni.text]


def test_everything_can_be_undone_and_no_more(
    omni: StubOmni, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert talk(monkeypatch, "One", "Two", "/undo", "/undo", "/undo", "Three", options="--no-speech") == 0
    assert asked(omni, 2) == [Text("Three")]
    err = capsys.readouterr().err
    assert err.count("are forgotten") == 2 and err.count("nothing was asked yet") == 1


def test_an_answer_is_asked_for_again(omni: StubOmni, monkeypatch: pytest.MonkeyPatch) -> None:
    put("a.png")
    assert talk(monkeypatch, "One", "/image a.png", "Two", "/retry", "/save kept", options="--no-speech") == 0
    assert asked(omni, 2) == asked(omni, 1) == [Text("One"), Text(omni.text), Image("a.png"), Text("Two")]
    assert len(json.loads(Path("kept/talk.json").read_text())) == 4


def test_what_waits_for_the_next_question_is_not_mixed_into_the_last(
    omni: StubOmni, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put("a.png")
    assert talk(monkeypatch, "/retry", "One", "/image a.png", "/retry", "Two", options="--no-speech") == 0
    assert asked(omni, 1) == [Text("One"), Text(omni.text), Image("a.png"), Text("Two")]
    err = capsys.readouterr().err
    assert "nothing was asked yet" in err and "goes with the next question already" in err


def test_a_seed_begins_anew_and_the_talk_goes_on(
    omni: StubOmni, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put("a.png")
    lines = ("One", "/image a.png", "/seed 7", "Two", "/undo", "/seed -1", "/seed", "Three")
    assert talk(monkeypatch, *lines, options="--no-speech --seed 1") == 0
    assert [call[1]["seed"] for call in omni.calls] == [1, 7, 7]
    assert asked(omni, 1) == [Text("One"), Text(omni.text), Image("a.png"), Text("Two")]
    assert asked(omni, 2) == [Text("One"), Text(omni.text), Text("Three")]
    assert capsys.readouterr().err.count("expected a whole number") == 2


def test_the_last_sound_is_heard_again(
    omni: StubOmni, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert talk(monkeypatch, "/play", "One", "/play") == 0
    err = capsys.readouterr().err
    assert "no answer has a sound yet" in err and "no player is installed; the sound is in talk/answer-1.wav" in err
    folder = tmp_path / "bin"
    folder.mkdir()
    install(folder, "aplay", f"/bin/cat >> {tmp_path}/heard")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(sys, "stdin", io.StringIO("One\n/play\n"))
    assert run(["chat"]) == 0
    heard = (tmp_path / "heard").read_bytes()
    half = len(heard) // 2
    assert half == 5 * 2 * 2400 and heard[:half] == heard[half:]


def test_an_interrupted_answer_is_part_of_the_talk(omni: StubOmni, monkeypatch: pytest.MonkeyPatch) -> None:
    good = omni.events

    def events(*, speech: bool) -> Iterator[Event]:
        made = good(speech=speech)
        yield next(made)
        yield next(made)
        raise KeyboardInterrupt

    monkeypatch.setattr(omni, "events", events)
    assert talk(monkeypatch, "One", "/save kept", "/undo", "/save again", options="--no-speech") == 0
    saved = json.loads(Path("kept/talk.json").read_text())
    assert [turn["content"][0]["text"] for turn in saved] == ["One", "Seven plus"]
    assert json.loads(Path("again/talk.json").read_text()) == []
