"""The ear's arithmetic: numbers, homophones and word error."""

import numpy as np
import pytest

from descant.evals.speech import WhisperEar, spell_number, word_error, words


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("7 plus 5 is 12.", "seven plus five is twelve"),
        ("7 + 5 = 12", "seven plus five equals twelve"),
        ("Forty-two comes after forty-one.", "42 comes after 41"),
        ("9-4 is 5", "nine minus four is five"),
        ("I can hear too", "i can here two"),
    ],
)
def test_equal_to_an_ear(written, spoken):
    assert words(written) == words(spoken)


def test_numbers():
    assert [spell_number(n) for n in (0, 13, 20, 42, 100, 342)] == [
        "zero", "thirteen", "twenty", "forty two", "one hundred", "three hundred forty two",
    ]  # fmt: skip


def test_word_error_is_pooled_over_words():
    pytest.importorskip("jiwer", reason="the eval extra is optional")
    whole = word_error([("the cat sat", "the cat sat"), ("the cat sat", "the bat sat down"), ("one two", "")])
    assert (whole.errors, whole.words, whole.answers) == (4, 8, 3)
    assert word_error([("a b", "a b"), ("c d", "c x")]).rate == 25.0


def test_silence_is_no_speech():
    pytest.importorskip("faster_whisper", reason="the eval extra is optional")
    assert WhisperEar().hear(np.zeros(0, np.float32), 24_000) == ""
