"""The closed domain: right answers, honest splits, and the same questions for the same seed."""

from __future__ import annotations

import random

import pytest

from descant.errors import OptionError
from descant.train.nano import domain, phrases


@pytest.mark.parametrize(
    "value, words", [(0, "zero"), (13, "thirteen"), (20, "twenty"), (34, "thirty four"), (100, "one hundred")]
)
def test_numbers_are_words(value: int, words: str) -> None:
    assert domain.number(value) == words


def test_a_number_out_of_range_is_an_error() -> None:
    with pytest.raises(OptionError, match="from 0 to 100, got 101"):
        domain.number(101)


@pytest.mark.parametrize(
    "task, core, reply",
    [
        ("plus", (7, 5), "Seven plus five is twelve."),
        ("minus", (20, 20), "Twenty minus twenty is zero."),
        ("opposite", ("cold",), "The opposite of cold is hot."),
        ("next", (99,), "After ninety nine comes one hundred."),
        ("day", ("sunday",), "After Sunday comes Monday."),
        ("month", ("december",), "After December comes January."),
        ("chat", ("name", 0), "My name is nano."),
    ],
)
def test_replies_are_right(task: str, core: tuple[str | int, ...], reply: str) -> None:
    assert domain.reply(task, core) == reply


@pytest.mark.parametrize("task", domain.TEXT_TASKS)
def test_training_never_sees_a_held_out_question(task: str) -> None:
    rng = random.Random(0)
    train = {domain.sample(task, rng, "train")[0] for _ in range(4000)}
    test = {domain.sample(task, rng, "test")[0] for _ in range(300)}
    assert len(test) >= 8
    assert not train & test


def test_held_out_sums_have_their_commuted_twin_in_training() -> None:
    held = [(a, b) for a in range(21) for b in range(21 - a) if domain.held_out("plus", (a, b), 0, 0)]
    assert len(held) >= 25
    assert all(not domain.held_out("plus", (b, a), 0, 0) for a, b in held)


def test_held_out_numbers_are_made_of_known_tens_and_units() -> None:
    trained = [n for n in range(100) if not domain.held_out("next", (n,), 0, 0)]
    held = [n for n in range(100) if n not in trained]
    assert len(held) == 10
    assert all(any(t // 10 == n // 10 for t in trained) and any(t % 10 == n % 10 for t in trained) for n in held)


def test_every_colour_and_shape_is_common_in_training() -> None:
    held = [(c, s) for c in phrases.COLOURS for s in phrases.SHAPES if domain.held_out_pair(c, s)]
    assert 8 <= len(held) <= 12
    assert all(sum(c == colour for c, _ in held) <= 2 for colour in phrases.COLOURS)
    assert all(sum(s == shape for _, s in held) <= 2 for shape in phrases.SHAPES)


def test_the_same_seed_asks_the_same_questions() -> None:
    def ask() -> list[tuple[str, str]]:
        rng = random.Random(7)
        return [domain.sample(task, rng, "train") for task in domain.TEXT_TASKS for _ in range(5)]

    assert ask() == ask()
    # Golden: a change of the words or of the drawing makes old runs and their figures incomparable.
    assert domain.sample("plus", random.Random(1), "test") == GOLDEN


GOLDEN = ("okay add four and seven", "Seven plus four is eleven.")


def test_every_answer_that_is_drawn_is_listed() -> None:
    rng, listed = random.Random(3), set(domain.replies("train"))
    assert {domain.sample(task, rng, "train")[1] for task in domain.TEXT_TASKS for _ in range(300)} <= listed


def test_one_reply_is_long_enough_to_hear_it_stream() -> None:
    assert max(len(reply.split()) for reply in domain.replies("train")) >= 20


def test_typed_questions_keep_their_words() -> None:
    rng = random.Random(0)
    for _ in range(50):
        assert domain.normalise_words(domain.as_typed("what is seven plus five", rng)) == "what is seven plus five"
    assert "7 plus 35" in domain.as_typed("seven plus thirty five", rng, digits=1.0)


def test_an_unknown_task_names_the_known_ones() -> None:
    with pytest.raises(OptionError, match="chat, plus, minus"):
        domain.sample("poetry", random.Random(0), "train")


@pytest.mark.parametrize(
    "task, answer, right",
    [
        ("plus", "seven plus five is twelve", True),
        ("plus", "Seven plus five is thirteen.", False),
        ("video", "In second two it was blue.", True),
        ("video", "In second three it was red.", False),
    ],
)
def test_scoring(task: str, answer: str, right: bool) -> None:
    expected = "In second three it was blue." if task == "video" else "Seven plus five is twelve."
    assert domain.correct(task, answer, expected) is right
