"""What was heard of an answer: a prefix at a word's end, that grows with time from nothing to all of it."""

from __future__ import annotations

import math
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from descant.engine.spoken_prefix import (
    SECONDS_PER_LETTER,
    SPOKEN_SIGNS,
    pace_of,
    spoken_pieces,
    spoken_prefix,
    timeline,
)
from descant.errors import OptionError

WORDS = (
    "Hello,", "I", "see", "342", "stars.", "你好，", "世界。", "これは", "（真的）", "안녕하세요", "**bold**", "—",
    "7%", "don't", "😀", "👩\u200d🚀", "e\u0301te\u0301", "か\u3099", "葛\U000e0100", "3.5", "- ", "#", "\u0301", "GPU",
    "—\u0301x", "ｶﾞ",
)  # fmt: skip
texts = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from((*WORDS, " ", " ", "\n")), max_size=20).map("".join),
    st.lists(st.sampled_from(WORDS), max_size=10).map(" ".join),
)
seconds = st.floats(0, 60)
lengths = st.one_of(st.none(), st.floats(0, 60))


@given(texts, seconds, seconds, lengths)
def test_more_time_is_never_less_text(text: str, one: float, other: float, spoken: float | None) -> None:
    early, late = sorted((one, other))
    assert 0 <= spoken_prefix(text, early, spoken=spoken) <= spoken_prefix(text, late, spoken=spoken) <= len(text)


@given(texts, lengths)
@example("one two", 0.0)
def test_nothing_at_the_start_and_all_at_the_end(text: str, spoken: float | None) -> None:
    assert spoken_prefix(text, 0.0, spoken=spoken) == 0
    end = spoken or 1e6
    assert spoken_prefix(text, end, spoken=spoken) == spoken_prefix(text, end + 1, spoken=spoken) == len(text)


def cuts(text: str) -> list[int]:
    """Every place, ends apart, where a text can come to be cut."""
    words, whole = timeline(text)
    found = {spoken_prefix(text, middle * (1 + 1e-9), spoken=whole) for _, middle in words}
    return sorted(found - {0, len(text)})


@given(texts)
def test_a_cut_is_after_a_word_and_before_what_parts_it_from_the_next(text: str) -> None:
    for cut in cuts(text):
        assert not text[cut - 1].isspace()
        assert any(char.isalnum() or char in SPOKEN_SIGNS for char in text[:cut])
        spaceless = any(char > "\u2e00" or char == "—" for char in text[: cut + 1])
        assert text[cut].isspace() or spaceless


@given(texts)
@example("a—\u0301b c")
@example("か\u3099か")
@example("ｶﾞ葛\U000e0100葛👩\u200d🚀。葛")
def test_a_cut_never_parts_a_character_from_its_marks(text: str) -> None:
    for cut in cuts(text):
        assert unicodedata.category(text[cut]) not in ("Mn", "Me", "Mc") and text[cut] not in "ﾞﾟ"
        assert "\u200d" not in text[cut - 1 : cut + 1]


@given(texts)
def test_words_follow_each_other_in_text_and_in_time(text: str) -> None:
    pieces, (words, whole) = spoken_pieces(text), timeline(text)
    assert [end for _, end in pieces] == [end for end, _ in words]
    assert all(a < b for a, b in pieces)
    assert all(one[1] <= two[0] for one, two in pairwise(pieces))
    middles = [0.0, *(middle for _, middle in words), whole]
    assert middles == sorted(middles)


@given(texts, st.floats(0.1, 60), st.floats(0, 0.99))
def test_the_pace_of_an_answer_tells_the_same_as_its_length(text: str, spoken: float, share: float) -> None:
    if not spoken_pieces(text):
        return
    near = {spoken_prefix(text, at, spoken=spoken) for at in (share * spoken * (1 - 1e-9), share * spoken * (1 + 1e-9))}
    assert spoken_prefix(text, share * spoken, spoken=None, pace=pace_of(text, spoken)) in near


def said(text: str, spoken: float = 10.0) -> list[str]:
    """All that is ever kept of a text, shortest first."""
    cuts = {spoken_prefix(text, i * spoken / 1000, spoken=spoken) for i in range(1001)}
    return [text[:cut] for cut in sorted(cuts)]


@pytest.mark.parametrize(
    "text, kept",
    [
        ("Hello, you there. ", ["", "Hello,", "Hello, you", "Hello, you there. "]),
        ("你好，世界。", ["", "你", "你好，", "你好，世", "你好，世界。"]),
        ("有GPU！", ["", "有", "有GPU！"]),
        ("他说「好」", ["", "他", "他说", "他说「好」"]),
        (
            "**Yes** 😀 it - is\n- one",
            ["", "**Yes** 😀", "**Yes** 😀 it -", "**Yes** 😀 it - is", "**Yes** 😀 it - is\n- one"],
        ),
        ("I was there—then", ["", "I", "I was", "I was there—", "I was there—then"]),
        ("😀 ...", ["", "😀 ..."]),
        ("", [""]),
    ],
)
def test_what_can_be_kept_of_a_text(text: str, kept: list[str]) -> None:
    assert said(text) == kept


def test_a_word_is_heard_when_more_than_half_of_it_was() -> None:
    assert [spoken_prefix("four", at, spoken=1.0) for at in (0.49, 0.51)] == [0, 4]
    (_, middle), *_ = timeline("one two")[0]
    _, whole = timeline("one two")
    assert spoken_prefix("one two", middle / whole, spoken=1.0) == 0
    assert spoken_prefix("one two", middle / whole + 1e-6, spoken=1.0) == len("one")
    assert spoken_prefix("one two", SECONDS_PER_LETTER * middle + 1e-6, spoken=None) == len("one")


def test_digits_and_signs_take_as_long_as_their_words() -> None:
    written, spelt = timeline("see 342 cats")[1], timeline("see three hundred forty two cats")[1]
    assert math.isclose(written, spelt, rel_tol=0.25)
    assert timeline("it is 7% more")[1] > timeline("it is 7 more")[1]
    assert timeline("it is **more**")[1] == timeline("it is more")[1]


def test_pauses_delay_what_follows() -> None:
    plain, comma, stop = (timeline(f"yes{mark} it is")[0][1][1] for mark in ("", ",", "."))
    line = timeline("yes\nit is")[0][1][1]
    assert plain < comma < stop == line
    assert timeline("it is")[1] == timeline("it is.")[1]  # the last word is drawn out, with or without a full stop


def test_without_a_length_words_come_at_the_pace() -> None:
    text = "one two three four five six"
    half = spoken_prefix(text, 1.0, spoken=None)
    assert 0 < half < len(text)
    assert spoken_prefix(text, 2.0, spoken=None, pace=2 * SECONDS_PER_LETTER) == half
    assert spoken_prefix(text, 1.0, spoken=None, pace=10 * SECONDS_PER_LETTER) < half
    assert pace_of("...", 3.0) == pace_of(text, 0.0) == SECONDS_PER_LETTER


@pytest.mark.parametrize("name", ["seconds", "spoken", "pace"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, -math.inf])
def test_times_that_are_no_times_are_refused(name: str, value: float) -> None:
    given: dict[str, float] = {"seconds": 1.0, "spoken": 2.0, "pace": SECONDS_PER_LETTER, name: value}
    with pytest.raises(OptionError, match=rf"{name}={value} is no time; give seconds, 0 or more"):
        spoken_prefix("one two", given["seconds"], spoken=given["spoken"], pace=given["pace"])
