"""Which words of an answer a listener has heard, from nothing but the text and a clock.

The Talker reads one text row per code, far ahead of the sound, and keeps no alignment. So the sound's time is dealt out
over the text by weight: every letter 1, and what else takes time (below). A word counts as heard once more than half of
it was. ``benchmarks/spoken_prefix.py`` fits the weights on the teacher's true timings and measures the error on nano.
"""

from __future__ import annotations

import math
import re

from descant.errors import OptionError

# In letters of the teacher's voice (flite slt, least squares over its training lines:
# `benchmarks/spoken_prefix.py --fit`).
WORD_LETTERS = 0.5  # each word, beside its letters
DIGIT_LETTERS = 4.5  # "342" takes as long as its words; signs that are spoken (%, +, ...) count as much
CLAUSE_LETTERS = 2.0  # the last word before a pause is drawn out by this, and a comma's pause is this long
SENTENCE_LETTERS = 6.0  # the pause after a sentence: 0.37 s between two utterances of flite, 0.30 s in espeak-ng
EDGE_LETTERS = 1.5  # silence before the first word, and after the last: 0.06 and 0.12 s in nano's lessons
# Mandarin 5.2 and English 6.2 syllables a second (Pellegrino, Coupé, Marsico 2011), about 3.7 letters an English
# syllable, its share of WORD_LETTERS counted in. Not measured here: nano speaks English alone.
IDEOGRAPH_LETTERS = 4.4
SECONDS_PER_LETTER = 0.06  # of flite slt and so of nano; by the same figures people talk at about 0.044

SPOKEN_SIGNS = "%&+=@$€£¥°"
STOP_MARKS = ".!?…。！？\n"
COMMA_MARKS = ",;:()—–，、；：（）"
OPENING_MARKS = "「『（【《〈“‘(["
# Scripts without spaces, where each character is a word of its own: kana, bopomofo, Han; then also Hangul syllables.
_ALONE = "々-〇ぁ-ゖァ-ヺー-ヿㄅ-ㄯ㐀-䶿一-鿿豈-﫿ｦ-ﾝ\U00020000-\U0003ffff"
_SYLLABLE = re.compile(f"[{_ALONE}가-힣]")
_OPEN = f"[{re.escape(OPENING_MARKS)}]"
_TRAIL = rf"(?:[^\w\s{re.escape(OPENING_MARKS)}]|[ﾞﾟ])*"  # marks and punctuation
_PIECE = re.compile(rf"{_OPEN}*[{_ALONE}]{_TRAIL}|[^\s{_ALONE}—]+(?:—{_TRAIL})?|—{_TRAIL}")


def spoken_prefix(text: str, seconds: float, *, spoken: float | None, pace: float = SECONDS_PER_LETTER) -> int:
    """The number of leading characters of ``text`` that were heard in the first ``seconds`` of its sound.

    spoken: seconds of the whole sound, or None while it is not all there; then words come at ``pace`` (seconds a unit
    of weight; `pace_of` measures it on an answer that is complete). The cut is after a word and its punctuation, before
    the space; in scripts without spaces, after a character. 0 seconds: nothing; the whole sound: the whole text.
    Raises OptionError for times that are no times.
    """
    for name, value in (("seconds", seconds), ("spoken", spoken), ("pace", pace)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise OptionError(f"{name}={value} is no time; give seconds, 0 or more")
    if seconds == 0:
        return 0
    if spoken is not None and seconds >= spoken:
        return len(text)
    words, whole = timeline(text)
    total = spoken if spoken is not None else pace * whole
    if seconds >= total:
        return len(text)
    now = whole * (seconds / total)
    cut = 0
    for end, middle in words:
        if middle >= now:
            break
        cut = end
    return cut


def pace_of(text: str, spoken: float) -> float:
    """Seconds a letter of a text whose whole sound took ``spoken`` seconds; the default if nothing was spoken."""
    words, whole = timeline(text)
    return spoken / whole if words and spoken > 0 else SECONDS_PER_LETTER


def timeline(text: str) -> tuple[list[tuple[int, float]], float]:
    """-> for each word (where it ends in the text, the weight up to its middle), and the weight of the whole."""
    words: list[tuple[int, float]] = []
    at = EDGE_LETTERS
    pause = 0.0
    pieces = spoken_pieces(text)
    for number, (start, end) in enumerate(pieces):
        at += pause
        following = pieces[number + 1][0] if number + 1 < len(pieces) else end
        pause = pause_after(text[start:following])
        last = bool(pause) or number + 1 == len(pieces)
        length = weight(text[start:end]) + (CLAUSE_LETTERS if last else 0.0)
        words.append((end, at + length / 2))
        at += length
    return words, at + EDGE_LETTERS


def spoken_pieces(text: str) -> list[tuple[int, int]]:
    """(start, end) of each word with what is written beside it and not spoken: punctuation, markdown, emoji.

    Signs that stand alone go with the word before them, or with the next one if a line break comes first (bullets). The
    last word ends with the text.
    """
    pieces: list[tuple[int, int]] = []
    pending = -1
    for match in _PIECE.finditer(text):
        if any(map(is_spoken, match[0])):
            pieces.append((match.start() if pending < 0 else pending, match.end()))
            pending = -1
        elif pending < 0 and pieces and "\n" not in text[pieces[-1][1] : match.start()]:
            pieces[-1] = (pieces[-1][0], match.end())
        elif pending < 0:
            pending = match.start()
    if pieces:
        pieces[-1] = (pieces[-1][0], len(text))
    return pieces


def is_spoken(char: str) -> bool:
    return char.isalnum() or char in SPOKEN_SIGNS


def weight(word: str) -> float:
    """The length of a word in letters: the time that it takes."""
    syllables = len(_SYLLABLE.findall(word))
    digits = sum(char.isnumeric() or char in SPOKEN_SIGNS for char in _SYLLABLE.sub("", word))
    letters = sum(map(is_spoken, word)) - syllables - digits
    return WORD_LETTERS + letters + DIGIT_LETTERS * digits + (IDEOGRAPH_LETTERS - WORD_LETTERS) * syllables


def pause_after(stretch: str) -> float:
    """The pause at the end of a word and what follows it up to the next: by its punctuation and line breaks."""
    last = max((i for i, char in enumerate(stretch) if is_spoken(char)), default=-1)
    rest = stretch[last + 1 :]
    if any(char in STOP_MARKS for char in rest):
        return SENTENCE_LETTERS
    return CLAUSE_LETTERS if any(char in COMMA_MARKS for char in rest) else 0.0
