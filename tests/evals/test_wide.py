"""Rows of the whole domain: a model that is always right meets every bar, one that is not meets none; talks by turn."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from descant.errors import OptionError
from descant.evals import newcomer, people, report, talking, tasks, wide
from descant.train.nano import domain, refusals, talks, voices, wording
from descant.types import AudioChunk, Event, Finished, Message, Part, Timings, Usage


def finished(text: str) -> Finished:
    return Finished(text, "stop", Usage(1, 1, 1), Timings(1.0, 2.0, first_audio_s=0.1, rtf=0.5), 0.0)


class Knower:
    """Answers with the right answers that it is told of, by the question's identity, or always with ``otherwise``."""

    speaks = True

    def __init__(self, otherwise: str = "") -> None:
        self.known: dict[int, str] = {}
        self.otherwise = otherwise

    def chat(self, messages: list[Message], *, speech: bool = True, seed: int = 0) -> Iterator[Event]:
        text = self.otherwise or self.known[id(messages[0])]
        if speech:
            yield AudioChunk(np.array([ord(c) for c in text], np.float32), 0, 24_000, 0.0)
        yield finished(text)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> Knower:
    """No engines and no recordings: what is said is a short silence; the model knows all answers."""
    model = Knower()
    real = tasks.TaskRow.items
    kept: list[tasks.EvalItem] = []

    def remember(row: tasks.TaskRow, count: int, seed: int) -> list[tasks.EvalItem]:
        items = real(row, count, seed)
        kept.extend(items)
        model.known.update({id(item.question): item.expected for item in items})
        return items

    def phrase(name: str) -> tasks.EvalItem:
        item = make_item(name)
        kept.append(item)
        model.known[id(item.question)] = people.PHRASES.get(name, "")
        return item

    make_item = wide.person_item
    monkeypatch.setattr(wide, "person_item", phrase)

    def silence(text: str, voice: str) -> np.ndarray:
        voices.Speaker.parse(voice)
        return np.full(1600, 0.1, np.float32)

    monkeypatch.setattr(tasks.TaskRow, "items", remember)
    monkeypatch.setattr(wide, "say_clip", silence)
    monkeypatch.setattr(wide, "has_engine", lambda speakers: True)
    monkeypatch.setattr(people, "is_installed", lambda: True)
    monkeypatch.setattr(people, "recording", lambda name: np.full(800, 0.1, np.float32))
    monkeypatch.setattr(report, "check_programs", lambda names: None)
    monkeypatch.setattr(report.omnis, "load", lambda name: model)
    return model


ROWS = ("words", "voices", "grid")


def test_a_model_that_knows_meets_every_bar(quiet: Knower, tmp_path: Path) -> None:
    told: list[str] = []
    lines = report.run_evaluation(
        "knower", tmp_path, samples=6, groups=ROWS, show=lambda made: told.append(report.results_json("x", made, 0))
    )
    assert len({line.name for line in lines}) == len(lines) > 40
    phrases = lines.pop(next(i for i, line in enumerate(lines) if "phrases" in line.name))
    assert phrases.value == 0 and phrases.met
    for line in lines:
        assert line.value == 100, line.name
        assert line.met is (None if line.bar is None else not line.below), line.name
    assert {row["name"] for row in json.loads(told[0])["rows"]} == {line.name for line in [*lines, phrases]}
    grid = [line for line in lines if line.name.startswith("grid: ")]
    assert len(grid) == len(wide.VOICES) * len(wide.CONDITIONS)


def test_a_model_that_says_one_thing_meets_none(quiet: Knower, tmp_path: Path) -> None:
    quiet.otherwise = "Bananas are yellow."
    for line in report.run_evaluation("knower", tmp_path, samples=4, groups=ROWS):
        if "phrases" in line.name:
            assert line.value > 90 and line.met is False
            continue
        assert line.value == 0 and line.met is (None if line.bar is None else line.below), line.name


def test_any_honest_reply_is_right_where_nothing_can_be_known(quiet: Knower, tmp_path: Path) -> None:
    quiet.otherwise = refusals.REMARK
    lines = report.run_evaluation("knower", tmp_path, samples=4, groups=("words", "voices"))
    for line in lines:
        assert "phrases" in line.name or (line.value == 100) == ("honest" in line.name), line.name


def test_unknown_rows_are_told(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="unknown group of rows 'talk'"):
        report.run_evaluation("nano", tmp_path, groups=("talk",))


def test_rows_depend_on_their_seed_alone(quiet: Knower) -> None:
    for row in [*wide.word_rows(), *wide.voice_rows()]:
        first, again, other = (row.items(4, seed) for seed in (1, 1, 2))
        assert [i.expected for i in first] == [i.expected for i in again]
        if row.name.startswith(("typed", "spoken", "picture")):
            assert [i.expected for i in first] != [i.expected for i in other]


def test_pictures_in_another_order_have_no_beep_at_their_colour(quiet: Knower) -> None:
    """What was right is wrong: at the beep another colour is shown."""
    rows = {row.name: row for row in wide.word_rows()}
    plain = rows["video: colour at the beep, in everybody's words"].items(8, 0)
    mixed = rows["video: the same in another order"].items(8, 0)
    for items, same in ((plain, True), (mixed, False)):
        for item in items:
            clip = item.question.content[0].source
            power = (clip.sound.reshape(4, -1) ** 2).mean(1)
            shown = clip.frames[2 * int(power.argmax()), 28, 28]
            colour = item.expected.rstrip(".").split()[-1]
            assert (nearest(shown) == colour) is same


def nearest(rgb: np.ndarray) -> str:
    import colorsys

    from descant.train.nano.phrases import VIDEO_COLOURS
    from descant.train.nano.pictures import _HSV

    hue = colorsys.rgb_to_hsv(*(rgb / 255))[0]
    return min(VIDEO_COLOURS, key=lambda c: min(abs(hue - _HSV[c][0]), 1 - abs(hue - _HSV[c][0])))


def test_the_newcomers_forty_are_forty_and_have_answers() -> None:
    assert len(newcomer.NEWCOMER) == 40 == len({text for text, _, _ in newcomer.NEWCOMER})
    assert all(newcomer.newcomer_reply(n) for n in range(40))
    assert newcomer.newcomer_reply(20) == "Two plus two is four."
    assert {task for _, task, _ in newcomer.NEWCOMER} <= set(wording.ASKING)


def test_a_persons_words_are_in_the_language_of_the_domain() -> None:
    assert len(people.WORDS) == 53 and len(people.PHRASES) == 20
    assert people.WORDS["digits/17"] == "seventeen" and people.WORDS["digits/70"] == "seventy"
    assert people.WORDS["digits/day-0"] == "sunday" and people.WORDS["digits/mon-11"] == "december"


@pytest.mark.skipif("not people.is_installed()", reason="the recordings are an optional package")
def test_recordings_are_read() -> None:
    import random

    said = people.recording("digits/7")
    assert said.dtype == np.float32 and 0.3 < len(said) / people.PEOPLE_RATE_HZ < 2 and 0.1 < np.abs(said).max() <= 1
    samples, reply = people.spliced_sum(random.Random(0))
    assert len(samples) > len(said) and domain.normalise_words(reply)


# ---------------------------------------------------------------- talks


class Session:
    """Answers turn after turn as it is told, and notes what it was given."""

    def __init__(self, answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.given: list[list[str]] = [[]]

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def push_audio(self, samples: np.ndarray, rate: int) -> None:
        self.given[-1].append("sound")

    def add(self, part: Part) -> None:
        self.given[-1].append(type(part).__name__)

    def respond(self) -> Iterator[Event]:
        self.given.append([])
        yield finished(self.answers.pop(0))


def held(talk: talks.Talk, answers: Sequence[str]) -> tuple[list[bool], Session]:
    session = Session(answers)
    return talking.hold_talk(SimpleNamespace(session=lambda **_: session), talk), session  # type: ignore[arg-type]


@pytest.mark.parametrize("spoken", [False, True])
def test_each_turn_of_a_talk_is_judged(quiet: Knower, spoken: bool) -> None:
    for number in range(25):
        talk = talking.drawn_talk(number, 0, spoken)
        again = talking.drawn_talk(number, 0, spoken)
        assert [turn.words for turn in talk.turns] == [turn.words for turn in again.turns]
        assert len(talk.turns) == talks.LONGEST_TALK
        right, session = held(talk, [turn.reply for turn in talk.turns])
        assert all(right)
        for turn, given in zip(talk.turns, session.given, strict=False):
            assert len(given) == len(turn.parts) and ("sound" in given) is spoken and "Image" not in given[1:]


def test_saying_again_is_judged_by_what_was_said(quiet: Knower) -> None:
    """A wrong answer is wrong once; to repeat it when asked to is right."""
    checked = 0
    for number in range(60):
        talk = talking.drawn_talk(number, 1, False)
        kinds = [turn.kind for turn in talk.turns]
        for at in range(1, len(kinds)):
            if kinds[at] == "again" and kinds[at - 1] == "ask":
                answers = [turn.reply for turn in talk.turns]
                answers[at - 1] = answers[at] = "Bananas are yellow."
                right, _ = held(talk, answers)
                checked += 1
                assert not right[at - 1] and right[at]
    assert checked > 3


def test_cost_reads_the_timings_of_spoken_answers(quiet: Knower, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x" * 3_000_000)
    model = SimpleNamespace(session=lambda **_: Session(["Hello."]), checkpoint=SimpleNamespace(folder=tmp_path))
    assert talking.cost(model, 3, 0) == (3.0, 0.1, 0.5)  # type: ignore[arg-type]


def test_speech_is_asked_of_every_kind_of_reply(quiet: Knower) -> None:
    items = wide.reply_items(2 * len(wide.REPLYING), 0)
    assert {item.task for item in items} >= {"chat", "video", "sound", "describe", "outside", "change", "before"}
    said = wide.say_items(5, 0)
    assert all(item.question.content[0].text == f"Say: {item.expected}" for item in said)
