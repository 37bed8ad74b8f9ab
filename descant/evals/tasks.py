"""The questions of the evaluation: fresh, held-out, and pure functions of a seed.

Words, pictures, sounds and videos come from the generators' test split (combinations that training never saw) and from
random states that training never used. Spoken questions are made on the spot by flite and espeak-ng.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from descant.train import domain
from descant.train.mixture import Source, make
from descant.train.questions import RATE, UNHEARD, draw_voice, synthesise
from descant.types import Audio, Clip, Image, Message, Part, Text, Video, user

TEXT = ("chat", "plus", "minus", "opposite", "next")
PICTURE = ("colour", "shape", "count")
HELD_OUT = Source("test", distorted=False)


@dataclass(frozen=True)
class Item:
    """One question and its one right answer."""

    task: str
    question: Message
    expected: str


@dataclass(frozen=True)
class Row:
    """One line of the table. chance and bar in percent (bar None: reported, not judged); tasks take turns."""

    name: str
    tasks: tuple[str, ...]
    item: Callable[[str, random.Random], Item]
    chance: float
    bar: float | None
    control: bool = False  # a control must stay within 5 points of chance

    def items(self, count: int, seed: int) -> list[Item]:
        """``count`` questions; the n-th depends on (seed, row, n) alone."""
        return [
            self.item(self.tasks[n % len(self.tasks)], random.Random(f"eval/{seed}/{self.name}/{n}"))
            for n in range(count)
        ]


def typed(task: str, rng: random.Random) -> Item:
    made = make(HELD_OUT, task, rng)
    return Item(task, made.question, made.reply)


def _voice(text: str, voice: str) -> Audio:
    return Audio(synthesise(text, voice), RATE)


def _spoken(task: str, rng: random.Random) -> Item:
    words, reply = domain.sample(task, rng, "test")
    return Item(task, user(_voice(words, draw_voice(rng))), reply)


def _unheard(task: str, rng: random.Random) -> Item:
    words, reply = domain.sample(task, rng, "test")
    return Item(task, user(_voice(words, rng.choice(UNHEARD))), reply)


def _aloud(task: str, rng: random.Random) -> Item:
    """A picture, with the question about it spoken."""
    made = typed(task, rng)
    speech = _voice(domain.picture_question(task, rng), draw_voice(rng))
    return replace(made, question=_swap(made.question, lambda part: speech if isinstance(part, Text) else part))


def _swap(message: Message, change: Callable[[Part], Part]) -> Message:
    return replace(message, content=tuple(change(part) for part in message.content))


def _mute(part: Part) -> Part:
    """The same part with nothing in it: silence, an empty picture, a film without its beep."""
    if isinstance(part, Audio) and isinstance(part.source, np.ndarray):
        return replace(part, source=np.zeros_like(part.source))
    if isinstance(part, Image) and isinstance(part.source, np.ndarray):
        return replace(part, source=np.full_like(part.source, 128))
    if isinstance(part, Video) and isinstance(part.source, Clip) and part.source.sound is not None:
        return replace(part, source=replace(part.source, sound=np.zeros_like(part.source.sound)))
    return part


def _without(item: Callable[[str, random.Random], Item]) -> Callable[[str, random.Random], Item]:
    """The same questions with the medium taken away."""

    def muted(task: str, rng: random.Random) -> Item:
        whole = item(task, rng)
        return replace(whole, question=_swap(whole.question, _mute))

    return muted


def mislabelled(row: Row, items: Sequence[Item], seed: int) -> list[Item]:
    """The items of a row, each with the right answer of a fresh question of its task: a control.

    Dealing the same answers out anew would hit more often than chance: one answer in n comes back to its question.
    """
    return [
        replace(item, expected=other.expected) for item, other in zip(items, row.items(len(items), seed), strict=True)
    ]


PICTURE_CHANCE = 100 * (1 / 8 + 1 / 8 + 1 / 6) / 3  # eight colours, eight shapes, one to six of them

ROWS = (
    Row("questions in text", TEXT, typed, chance=0, bar=95),
    Row("questions spoken, voices of training", TEXT, _spoken, chance=0, bar=80),
    Row("questions spoken, voices never heard", TEXT, _unheard, chance=0, bar=None),
    Row("picture: colour, shape, count; asked in text", PICTURE, typed, chance=PICTURE_CHANCE, bar=92),
    Row("picture: colour, shape, count; asked aloud", PICTURE, _aloud, chance=PICTURE_CHANCE, bar=70),
    Row("which of ten sounds", ("sound",), typed, chance=10, bar=90),
    Row("video: colour when the beep sounded", ("video",), typed, chance=25, bar=55),
    Row("control: spoken question silenced", TEXT, _without(_spoken), chance=0, bar=None, control=True),
    Row("control: picture emptied", PICTURE, _without(typed), chance=PICTURE_CHANCE, bar=None, control=True),
    Row("control: sound silenced", ("sound",), _without(typed), chance=10, bar=None, control=True),
    Row("control: video without its beep", ("video",), _without(typed), chance=25, bar=None, control=True),
)
SHUFFLED = (  # rows whose answers are also judged after shuffling
    "questions in text",
    "picture: colour, shape, count; asked in text",
    "which of ten sounds",
    "video: colour when the beep sounded",
)
