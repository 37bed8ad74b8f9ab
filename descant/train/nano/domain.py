"""nano's closed domain: questions in plain words, short replies, and which of them training never sees.

Everything is a pure function of its arguments: the same `random.Random` state gives the same question, and the split of
a question depends on its words alone (a hash), never on the order of drawing. Held out are *combinations*:

- chat, opposite, minus, day, month: (question, way of asking it), each of whose halves training sees elsewhere;
- plus: ordered pairs (the smaller number first) whose commuted twin is in training;
- next: ten numbers whose tens and units training sees in other numbers;
- picture: (colour, shape) pairs.
"""

from __future__ import annotations

import hashlib
import random
import re
from typing import Literal

from descant.errors import OptionError
from descant.train.nano import phrases

Split = Literal["train", "test"]
TEXT_TASKS = ("chat", "plus", "minus", "opposite", "next", "day", "month")
IMAGE_TASKS = ("colour", "shape", "count", "describe")
VIDEO_TASK = "video"
MAX_NUMBER = 20  # the largest number in sums and differences
VIDEO_SECONDS = 4  # of every video, one colour each

_UNITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
          "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_HELD_NUMBERS = (23, 34, 37, 42, 56, 61, 68, 75, 84, 92)


def number(value: int) -> str:
    """0..100 in words: 34 -> "thirty four"."""
    if not 0 <= value <= 100:
        raise OptionError(f"nano counts from 0 to 100, got {value}")
    if value == 100:
        return "one hundred"
    if value < 20:
        return _UNITS[value]
    tens, unit = divmod(value, 10)
    return _TENS[tens - 2] if unit == 0 else f"{_TENS[tens - 2]} {_UNITS[unit]}"


def fraction(*key: str | int) -> float:
    """A number in [0, 1) that depends on the words of ``key`` alone; it decides the splits."""
    digest = hashlib.sha256("|".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def held_out(task: str, core: tuple[str | int, ...], form: int, wrapper: int) -> bool:
    """True if the question ``core`` (what is asked) in this form and wrapper belongs to the test split."""
    if task == "plus":
        a = int(core[0])
        b = int(core[1])
        return a < b and fraction("plus", a, b) < 0.3
    if task == "next":
        return int(core[0]) in _HELD_NUMBERS
    return fraction(task, *core, form, wrapper) < 0.12


def held_out_pair(colour: str, shape: str) -> bool:
    """True if pictures of this colour and shape are kept for the test split (9 of 64; each half stays common)."""
    c = phrases.COLOURS.index(colour)
    s = phrases.SHAPES.index(shape)
    return (c * 3 + s) % len(phrases.SHAPES) == 0 or (colour, shape) == ("red", "star")


# ---------------------------------------------------------------- text tasks


def cores(task: str) -> list[tuple[str | int, ...]]:
    """Everything that can be asked in a text task, wording apart."""
    return _CORES[task]


def _cores(task: str) -> list[tuple[str | int, ...]]:
    """Everything that can be asked in a text task, wording apart."""
    if task == "chat":
        return [(intent, i) for intent, _, asks in phrases.CHAT for i in range(len(asks))]
    if task == "plus":
        return [(a, b) for a in range(MAX_NUMBER + 1) for b in range(MAX_NUMBER + 1 - a)]
    if task == "minus":
        return [(a, b) for a in range(MAX_NUMBER + 1) for b in range(a + 1)]
    if task == "opposite":
        return [(w,) for pair in phrases.OPPOSITES for w in pair]
    if task == "next":
        return [(n,) for n in range(100)]
    if task == "day":
        return [(w,) for w in phrases.DAYS]
    if task == "month":
        return [(w,) for w in phrases.MONTHS]
    raise OptionError(f"unknown text task {task!r}; choose one of {', '.join(TEXT_TASKS)}")


_FORMS = {
    "chat": ("{q}",),
    "plus": phrases.PLUS,
    "minus": phrases.MINUS,
    "opposite": phrases.OPPOSITE,
    "next": phrases.NEXT,
    "day": phrases.NEXT_DAY,
    "month": phrases.NEXT_MONTH,
}
_CORES = {task: _cores(task) for task in TEXT_TASKS}
_CHAT = {intent: (reply, asks) for intent, reply, asks in phrases.CHAT}
_OPPOSITE_OF = {a: b for pair in phrases.OPPOSITES for a, b in (pair, pair[::-1])}


def _successor(words: tuple[str, ...], word: str) -> str:
    return words[(words.index(word) + 1) % len(words)]


def as_sentence(text: str) -> str:
    """With a capital and a full stop."""
    return text[0].upper() + text[1:] + "."


def reply(task: str, core: tuple[str | int, ...]) -> str:
    """The one right answer to a text question."""
    if task == "chat":
        return _CHAT[str(core[0])][0]
    if task in ("plus", "minus"):
        a = int(core[0])
        b = int(core[1])
        if task == "plus":  # the larger number is named first: a sum has one sentence, however it was asked for
            a, b = max(a, b), min(a, b)
        total = a + b if task == "plus" else a - b
        return as_sentence(f"{number(a)} {task} {number(b)} is {number(total)}")
    word = str(core[0])
    if task == "opposite":
        return as_sentence(f"the opposite of {word} is {_OPPOSITE_OF[word]}")
    if task == "next":
        return as_sentence(f"after {number(int(core[0]))} comes {number(int(core[0]) + 1)}")
    after = _successor(phrases.DAYS if task == "day" else phrases.MONTHS, word)
    return as_sentence(f"after {word.title()} comes {after.title()}")


def question_words(task: str, core: tuple[str | int, ...], form: int, wrapper: int) -> str:
    """The words of a text question, as they are spoken."""
    template = _FORMS[task][form]
    if task == "chat":
        words = template.format(q=_CHAT[str(core[0])][1][int(core[1])])
    elif task in ("plus", "minus"):
        words = template.format(a=number(int(core[0])), b=number(int(core[1])))
    else:
        words = template.format(w=number(int(core[0])) if task == "next" else core[0])
    return wrap(words, wrapper)


def wrap(words: str, wrapper: int) -> str:
    before, after = phrases.WRAPPERS[wrapper]
    return before + words + after


def draw_wrapper(rng: random.Random) -> int:
    """Half of all questions come plain (wrapper 0)."""
    return 0 if rng.random() < 0.5 else rng.randrange(1, len(phrases.WRAPPERS))


def _draw_core(task: str, rng: random.Random) -> tuple[str | int, ...]:
    if task != "chat":
        return rng.choice(_CORES[task])
    intent, _, asks = rng.choice(phrases.CHAT)  # every intent equally often, however many ways to ask it has
    return (intent, rng.randrange(len(asks)))


def sample(task: str, rng: random.Random, split: Split) -> tuple[str, str]:
    """One (question, reply) of a text task; the question is spoken words, see `as_typed` for how people write it."""
    if task not in _CORES:
        raise OptionError(f"unknown text task {task!r}; choose one of {', '.join(TEXT_TASKS)}")
    while True:
        core = _draw_core(task, rng)
        form = rng.randrange(len(_FORMS[task]))
        wrapper = draw_wrapper(rng)
        if held_out(task, core, form, wrapper) == (split == "test"):
            return question_words(task, core, form, wrapper), reply(task, core)


_DIGITS = {number(n): str(n) for n in range(101)}
_NUMBER = re.compile(r"\b(" + "|".join(sorted(_DIGITS, key=len, reverse=True)) + r")\b")


def with_digits(words: str) -> str:
    """The same with its numbers in digits."""
    return _NUMBER.sub(lambda m: _DIGITS[m.group(0)], words)


def as_typed(words: str, rng: random.Random, digits: float = 0.0) -> str:
    """A spoken question as somebody might type it: capitals, punctuation and, with probability ``digits``, digits."""
    if rng.random() < digits:
        words = with_digits(words)
    if rng.random() < 0.6:
        words = words[0].upper() + words[1:]
    return words + rng.choice(("?", "?", "", "."))


# ---------------------------------------------------------------- what is said about media


def picture_question(task: str, rng: random.Random) -> str:
    """A question about a picture (``task``: one of IMAGE_TASKS), as spoken."""
    asks = {"colour": phrases.ASK_COLOUR, "shape": phrases.ASK_SHAPE, "count": phrases.ASK_COUNT,
            "describe": phrases.ASK_PICTURE}  # fmt: skip
    return rng.choice(asks[task])


def picture_reply(task: str, colour: str, shape: str, count: int) -> str:
    noun = shape if count == 1 else ("crosses" if shape == "cross" else shape + "s")
    if task == "colour":
        return f"The colour is {colour}."
    if task == "shape":
        return f"The shape is a {shape}."
    if task == "count":
        return "I see one shape." if count == 1 else f"I see {number(count)} shapes."
    return f"I see {number(count)} {colour} {noun}."


def sound_reply(kind: str) -> str:
    return f"I hear {dict(phrases.SOUNDS)[kind]}."


def video_reply(second: int, colour: str) -> str:
    """Says when before what: a small model finds the colour once it has written down the second (0, 1, ...)."""
    return f"In second {number(second + 1)} it was {colour}."


def replies(split: Split) -> list[str]:
    """Every unique reply of the domain that ``split`` can ask for, media replies included, sorted."""
    test = split == "test"
    found = set()
    for task, cores in _CORES.items():
        for core in cores:
            ways = ((f, w) for f in range(len(_FORMS[task])) for w in range(len(phrases.WRAPPERS)))
            if any(held_out(task, core, f, w) == test for f, w in ways):
                found.add(reply(task, core))
    for colour in phrases.COLOURS:
        for shape in phrases.SHAPES:
            if held_out_pair(colour, shape) == test:
                found |= {picture_reply(t, colour, shape, n) for t in IMAGE_TASKS for n in range(1, 7)}
    found |= {sound_reply(kind) for kind, _ in phrases.SOUNDS}
    return sorted(found | {video_reply(s, c) for s in range(VIDEO_SECONDS) for c in phrases.VIDEO_COLOURS})


def normalise_words(text: str) -> str:
    """Lower case, letters only, single spaces: what two right answers must agree in."""
    return " ".join(re.sub(r"[^a-z0-9 ]+", " ", text.lower()).split())


def correct(task: str, answer: str, expected: str) -> bool:
    """True if an answer says exactly what was expected, capitals and punctuation apart; of a video only the colour."""
    said = normalise_words(answer)
    wanted = normalise_words(expected)
    if task == VIDEO_TASK:
        return said.split()[-1:] == wanted.split()[-1:]
    return said == wanted
