"""The questions of the evaluation: fresh, held-out, and pure functions of a seed.

Words, pictures, sounds and videos come from the generators' test split (combinations that training never saw) and from
random states that training never used. Spoken questions are made on the spot by flite and espeak-ng.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from descant.train.nano import domain
from descant.train.nano.mixture import Source, make_example
from descant.train.nano.questions import QUESTION_RATE_HZ, UNHEARD, draw_voice, synthesise
from descant.types import Audio, Clip, Image, Message, Part, Text, Video, user

TYPED_TASKS = ("chat", "plus", "minus", "opposite", "next")
PICTURE = ("colour", "shape", "count")
HELD_OUT = Source("test", distorted=False)


@dataclass(frozen=True)
class EvalItem:
    """One question and its one right answer. honest: any honest "I do not know" or "I heard nothing" is right."""

    task: str
    question: Message
    expected: str
    honest: bool = False


@dataclass(frozen=True)
class TaskRow:
    """One line of the table. chance and bar in percent (bar None: reported, not judged); tasks take turns.

    below: the bar is not to be exceeded; count: of its questions, whatever is asked for (0: as many as are asked for).
    """

    name: str
    tasks: tuple[str, ...]
    item: Callable[[str, random.Random], EvalItem]
    chance: float
    bar: float | None
    control: bool = False  # a control must stay within 5 points of chance
    below: bool = False
    count: int = 0

    def items(self, count: int, seed: int) -> list[EvalItem]:
        """``count`` questions, or as many as the row has; the n-th depends on (seed, row, n) alone."""
        return [
            self.item(self.tasks[n % len(self.tasks)], random.Random(f"eval/{seed}/{self.name}/{n}"))
            for n in range(self.count or count)
        ]


def typed_item(task: str, rng: random.Random) -> EvalItem:
    made = make_example(HELD_OUT, task, rng)
    return EvalItem(task, made.question, made.reply)


def _voice(text: str, voice: str) -> Audio:
    return Audio(synthesise(text, voice), QUESTION_RATE_HZ)


def _spoken(task: str, rng: random.Random) -> EvalItem:
    words, reply = domain.sample(task, rng, "test")
    return EvalItem(task, user(_voice(words, draw_voice(rng))), reply)


def _unheard(task: str, rng: random.Random) -> EvalItem:
    words, reply = domain.sample(task, rng, "test")
    return EvalItem(task, user(_voice(words, rng.choice(UNHEARD))), reply)


def _aloud(task: str, rng: random.Random) -> EvalItem:
    """A picture, with the question about it spoken."""
    made = typed_item(task, rng)
    speech = _voice(domain.picture_question(task, rng), draw_voice(rng))
    return replace(made, question=replaced(made.question, lambda part: speech if isinstance(part, Text) else part))


def replaced(message: Message, change: Callable[[Part], Part]) -> Message:
    """The message with each of its parts changed."""
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


def _without(item: Callable[[str, random.Random], EvalItem]) -> Callable[[str, random.Random], EvalItem]:
    """The same questions with the medium taken away."""

    def muted(task: str, rng: random.Random) -> EvalItem:
        whole = item(task, rng)
        return replace(whole, question=replaced(whole.question, _mute))

    return muted


def mislabelled(row: TaskRow, items: Sequence[EvalItem], seed: int) -> list[EvalItem]:
    """The items of a row, each with the right answer of a fresh question of its task: a control.

    Dealing the same answers out anew would hit more often than chance: one answer in n comes back to its question.
    """
    return [
        replace(item, expected=other.expected) for item, other in zip(items, row.items(len(items), seed), strict=True)
    ]


PICTURE_CHANCE = 100 * (1 / 8 + 1 / 8 + 1 / 6) / 3  # eight colours, eight shapes, one to six of them

TASK_ROWS = (
    TaskRow("questions in text", TYPED_TASKS, typed_item, chance=0, bar=95),
    TaskRow("questions spoken, voices of training", TYPED_TASKS, _spoken, chance=0, bar=80),
    TaskRow("questions spoken, voices never heard", TYPED_TASKS, _unheard, chance=0, bar=None),
    TaskRow("picture: colour, shape, count; asked in text", PICTURE, typed_item, chance=PICTURE_CHANCE, bar=92),
    TaskRow("picture: colour, shape, count; asked aloud", PICTURE, _aloud, chance=PICTURE_CHANCE, bar=70),
    TaskRow("which of ten sounds", ("sound",), typed_item, chance=10, bar=90),
    TaskRow("video: colour when the beep sounded", ("video",), typed_item, chance=25, bar=55),
    TaskRow("control: spoken question silenced", TYPED_TASKS, _without(_spoken), chance=0, bar=None, control=True),
    TaskRow("control: picture emptied", PICTURE, _without(typed_item), chance=PICTURE_CHANCE, bar=None, control=True),
    TaskRow("control: sound silenced", ("sound",), _without(typed_item), chance=10, bar=None, control=True),
    TaskRow("control: video without its beep", ("video",), _without(typed_item), chance=25, bar=None, control=True),
)
SHUFFLED = (  # rows whose answers are also judged after shuffling
    "questions in text",
    "picture: colour, shape, count; asked in text",
    "which of ten sounds",
    "video: colour when the beep sounded",
)
