"""A long text as passages that are read aloud one after another, each short enough for the Talker's limit of codes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from descant.engine.spoken_prefix import SECONDS_PER_LETTER, pause_after, spoken_pieces, weight

READ_SHARE = 0.4  # of the Talker's limit that a passage is to fill by estimate: voices and words differ in pace
CHARACTERS_PER_LETTER = 8  # that are looked at for a passage: marks and spaces weigh nothing


def passages(text: str, seconds: float) -> Iterator[str]:
    """Cut a text where its reader would breathe, into passages of at most ``seconds`` by estimate.

    A cut is after the last sentence that fits, else after a clause, else after a word, else inside a word. Joined, the
    passages are the text; the space after a passage belongs to it.
    """
    most = seconds / SECONDS_PER_LETTER
    seen = int(CHARACTERS_PER_LETTER * most) + 1
    while text:
        cut = first_cut(text[:seen], most)
        yield text[:cut]
        text = text[cut:]


def first_cut(text: str, most: float) -> int:
    """Where the first passage of a text ends: at most ``most`` letters by weight, and at least one character."""
    pieces = spoken_pieces(text)
    used = 0.0
    best = (-1.0, 0)  # the longest pause that was met, and the last place of it
    for (start, end), (following, _) in pairwise([*pieces, (len(text), len(text))]):
        length = weight(text[start:end])
        if used + length > most:
            return best[1] or max(1, start + int((end - start) * most / length))
        pause = pause_after(text[start:following])
        used += length + pause
        best = max(best, (pause, following))
    return len(text)
