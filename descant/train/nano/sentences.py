"""The lines of the teacher voice: the replies of the domain, sentences like them, and lists of words to read aloud.

The Talker learns letter-to-sound from unique text, so replies alone (about a thousand) would not do. All of it is a
pure function of the counts and the seed; nothing that the domain holds out is ever a training line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np

from descant.train.nano import domain

HELD_OUT_EVERY = 25  # one made-up line in 25 is kept for evaluation

# {n}: a number from 0 to 100 in words; {w}: any word, half the time one of the domain's own.
_SHAPES = (
    ("{n} plus {n} is {n}.", 4),
    ("{n} minus {n} is {n}.", 4),
    ("after {n} comes {n}.", 4),
    ("after {w} comes {w}.", 2),
    ("the opposite of {w} is {w}.", 4),
    ("i see {n} {w} {w}.", 5),
    ("i see {n} {w}.", 1),
    ("the colour is {w}.", 1),
    ("the shape is a {w}.", 1),
    ("i hear a {w}.", 1),
    ("i hear {w} {w}.", 1),
    ("it was {w}.", 1),
    ("yes, i can {w} {w}.", 1),
    ("my {w} is {w}.", 1),
    ("i am {w}, and the {w} is {w}.", 1),
    ("i do not {w} the {w}.", 1),
)


@dataclass(frozen=True)
class SpeechLine:
    """A sentence to be spoken. kind: "reply" (the domain's), "phrase" (built like one), "words" (a list) or "sentence"
    (plain English)."""

    text: str
    kind: str
    held_out: bool


def frequent_words() -> list[str]:
    """Some 1,750 frequent English words, written for this project."""
    return resources.files("descant.train.nano").joinpath("words.txt").read_text().split()


def sentence(words: str) -> str:
    """As the domain writes its replies: a capital at the start, "I" for i, a full stop at the end."""
    text = " ".join("I" if word == "i" else word for word in words.split())
    return (text[0].upper() + text[1:]).rstrip(".") + "."


class _Bag:
    """Draws words so that each comes equally often: a shuffled deck, shuffled anew when it runs out."""

    def __init__(self, words: Sequence[str], rng: np.random.Generator):
        self.words = list(words)
        self.rng = rng
        self.deck = [""][:0]

    def draw(self, count: int) -> list[str]:
        while len(self.deck) < count:
            self.deck += [self.words[i] for i in self.rng.permutation(len(self.words))]
        drawn = self.deck[:count]
        self.deck = self.deck[count:]
        return drawn


def reply_lines() -> list[SpeechLine]:
    """All replies of the domain; those that only held-out questions ask for are held out."""
    train = domain.replies("train")
    unseen = sorted(set(domain.replies("test")) - set(train))
    return [SpeechLine(text, "reply", False) for text in train] + [SpeechLine(text, "reply", True) for text in unseen]


def phrase_lines(count: int, seed: int, known: Sequence[str]) -> list[SpeechLine]:
    """``count`` unique sentences in the shapes of replies with other words in them; none of them is in ``known``."""
    rng = np.random.default_rng([seed, 2])
    own = _Bag(sorted({w for text in known for w in domain.normalise_words(text).split() if len(w) > 1}), rng)
    open_words = _Bag(frequent_words(), rng)
    shapes = [shape for shape, weight in _SHAPES for _ in range(weight)]
    taken = set(known)
    lines = [SpeechLine("", "", False)][:0]
    while len(lines) < count:
        words = shapes[rng.integers(len(shapes))]
        while "{" in words:
            words = words.replace("{n}", domain.number(int(rng.integers(101))), 1)
            words = words.replace("{w}", (own if rng.random() < 0.5 else open_words).draw(1)[0], 1)
        text = sentence(words)
        if text not in taken:
            taken.add(text)
            lines.append(SpeechLine(text, "phrase", len(lines) % HELD_OUT_EVERY == 0))
    return lines


def word_lines(count: int, seed: int, longest: int = 8) -> list[SpeechLine]:
    """``count`` unique lists of 2 to ``longest`` words, every frequent word equally often."""
    rng = np.random.default_rng([seed, 1])
    bag = _Bag(frequent_words(), rng)
    lines: dict[str, SpeechLine] = {}
    while len(lines) < count:
        text = sentence(" ".join(bag.draw(int(rng.integers(2, longest + 1)))))
        lines[text] = SpeechLine(text, "words", len(lines) % HELD_OUT_EVERY == 0)
    return list(lines.values())


def speech_lines(phrases: int, words: int, seed: int, replies: bool = True, longest: int = 8) -> list[SpeechLine]:
    """The whole script of the teacher voice, shuffled so that every stretch of it has all kinds."""
    own = reply_lines() if replies else []
    lines = own + phrase_lines(phrases, seed, [line.text for line in own]) + word_lines(words, seed, longest)
    order = np.random.default_rng([seed, 3]).permutation(len(lines))
    return [lines[i] for i in order]
