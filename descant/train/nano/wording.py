"""The domain in everybody's own words: each question in at least ten phrasings, as it is spoken and as it is typed.

`domain` says what may be asked and what is right; here it is put in words. What is held out are again combinations, by
the same rule: sums whose commuted twin is in training, numbers, and else (question, phrasing) pairs.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from descant.errors import OptionError
from descant.train.nano import domain, phrases, prose, refusals, sayings
from descant.train.nano.domain import Split, number
from descant.train.nano.sentences import frequent_words

ASKING = ("chat", "plus", "minus", "opposite", "next", "before", "day", "month")  # complete in themselves
FOLLOWING = ("more", "less", "again", "resume")  # only after a turn
ABOUT = {  # what is asked about a medium, or about the one shown before
    "colour": sayings.WAYS_COLOUR,
    "shape": sayings.WAYS_SHAPE,
    "count": sayings.WAYS_COUNT,
    "describe": sayings.WAYS_PICTURE,
    "where": sayings.WAYS_WHERE,
    "same": sayings.WAYS_SAME,
    "compare": sayings.WAYS_COMPARE,
    "sound": sayings.WAYS_SOUND,
    "video": sayings.WAYS_VIDEO,
    "change": sayings.WAYS_CHANGE,
}
_LEFT_OUT = ("repeat", "unknown")  # intents of phrases.CHAT that talks and refusals answer better
SMALL_TALK = {
    intent: (reply, asks + sayings.MORE_CHAT.get(intent, ()))
    for intent, reply, asks in phrases.CHAT
    if intent not in _LEFT_OUT
}
PHRASINGS = {
    "chat": ("{q}",),
    "plus": sayings.WAYS_PLUS,
    "minus": sayings.WAYS_MINUS,
    "opposite": sayings.WAYS_OPPOSITE,
    "next": sayings.WAYS_NEXT,
    "before": sayings.WAYS_BEFORE,
    "day": sayings.WAYS_NEXT_DAY,
    "month": sayings.WAYS_NEXT_MONTH,
    "more": sayings.WAYS_MORE,
    "less": sayings.WAYS_LESS,
    "again": sayings.WAYS_AGAIN,
    "resume": sayings.WAYS_RESUME,
}
FIRST_FORM = 100  # forms count from here in the rule of the split, apart from those of `phrases`
MOST_ADDED = 9  # in "and plus three"


@dataclass(frozen=True)
class Asked:
    """One question in words, as spoken. core: what is asked, the wording apart; reply: "" where it depends on more."""

    task: str
    core: tuple[str | int, ...]
    words: str
    reply: str


def draw_core(task: str, rng: random.Random) -> tuple[str | int, ...]:
    """Draw a question, its wording apart; every intent of small talk equally often."""
    if task == "chat":
        intent = rng.choice(list(SMALL_TALK))
        return intent, rng.randrange(len(SMALL_TALK[intent][1]))
    if task == "before":
        return (rng.randrange(1, 101),)
    if task in ("more", "less"):
        return (rng.randrange(1, MOST_ADDED + 1),)
    if task in ("again", "resume"):
        return ()
    return rng.choice(domain.cores(task))


def right_reply(task: str, core: tuple[str | int, ...]) -> str:
    """The one right answer to a question that is complete in itself."""
    if task == "before":
        n = int(core[0])
        return domain.as_sentence(f"before {number(n)} comes {number(n - 1)}")
    return SMALL_TALK[str(core[0])][0] if task == "chat" else domain.reply(task, core)


def put(task: str, core: tuple[str | int, ...], form: int, wrapper: int) -> str:
    """The words of a question in one form and wrapper."""
    template = PHRASINGS[task][form]
    if task == "chat":
        words = template.format(q=SMALL_TALK[str(core[0])][1][int(core[1])])
    elif task in ("plus", "minus"):
        words = template.format(a=number(int(core[0])), b=number(int(core[1])))
    elif task in ("more", "less"):
        words = template.format(b=number(int(core[0])))
    elif task in ("again", "resume"):
        words = template
    else:
        words = template.format(w=number(int(core[0])) if task in ("next", "before") else core[0])
    before, after = sayings.AROUND[wrapper]
    return before + words + after


def is_held_out(task: str, core: tuple[str | int, ...], form: int, wrapper: int) -> bool:
    """True if this question in this wording belongs to the test split; `domain` says by which rule."""
    if task == "before":
        return domain.held_out("next", (int(core[0]) - 1,), form, wrapper)
    return domain.held_out(task, core, FIRST_FORM + form, wrapper)


def draw_asked(task: str, rng: random.Random, split: Split) -> Asked:
    """One question of ``ASKING`` or ``FOLLOWING``, "outside", "sentence", "word", or about a medium (``ABOUT``)."""
    if task == "outside":
        words, said = refusals.draw_outside(rng, split)
        return Asked(task, (), words, said)
    if task in ("sentence", "word"):
        return Asked(task, (), _to_write(task, rng, split), "")
    if task in ABOUT:
        return Asked(task, (), _about(task, rng, split), "")
    if task not in PHRASINGS:
        raise OptionError(
            f"unknown task {task!r}; choose one of {', '.join((*PHRASINGS, *ABOUT))}, outside, sentence, word"
        )
    while True:
        core = draw_core(task, rng)
        form = rng.randrange(len(PHRASINGS[task]))
        wrapper = 0 if rng.random() < 0.6 else rng.randrange(1, len(sayings.AROUND))
        if is_held_out(task, core, form, wrapper) == (split == "test"):
            said = right_reply(task, core) if task in ASKING else ""
            return Asked(task, core, put(task, core, form, wrapper), said)


def _about(task: str, rng: random.Random, split: Split) -> str:
    while True:
        form = rng.randrange(len(ABOUT[task]))
        wrapper = 0 if rng.random() < 0.7 else rng.randrange(1, len(sayings.AROUND))
        if domain.held_out(task, (), FIRST_FORM + form, wrapper) == (split == "test"):
            before, after = sayings.AROUND[wrapper]
            return before + ABOUT[task][form] + after


def _to_write(task: str, rng: random.Random, split: Split) -> str:
    """Something to write down: a plain sentence, or one to three words, numbers and names of days among them."""
    while True:
        if task == "sentence":
            words = domain.normalise_words(prose.draw_sentence(rng))
        else:
            lists = (FREQUENT_WORDS, FREQUENT_WORDS, NUMBER_WORDS, (*phrases.DAYS, *phrases.MONTHS))
            words = " ".join(rng.choice(rng.choice(lists)) for _ in range(rng.choice((1, 1, 1, 2, 3))))
        if task == "word" or (domain.fraction("sentence", words) < 1 / 7) == (split == "test"):
            return words


NUMBER_WORDS = tuple(number(n) for n in range(101))
FREQUENT_WORDS = tuple(frequent_words())

# ---------------------------------------------------------------- as people type

_CONTRACTIONS = (("what is", "what's"), ("what is", "whats"), ("i am", "i'm"), ("i am", "im"), ("do not", "don't"),
                 ("how is", "how's"), ("where is", "where's"), ("it is", "it's"), ("can not", "cannot"),
                 ("you are", "you're"), ("please", "pls"), ("you", "u"), ("colour", "color"))  # fmt: skip
_SLIPPERY = ("what", "please", "tell", "number", "comes", "after", "before", "opposite", "which", "number", "there",
             "colour",
             "shape", "shapes", "many", "much", "does", "hello", "thank", "your", "picture", "sound", "know", "video",
             "weather", "about", "where", "minus", "plus", "good", "morning")  # fmt: skip
_SIGN = re.compile(r"\b(\d+) (plus|minus|and) (\d+)\b")


def typed_out(words: str, rng: random.Random) -> str:
    """A spoken question as somebody might type it: digits and signs, contractions, a slip, capitals, punctuation."""
    if rng.random() < 0.45:
        words = domain.with_digits(words)
        if rng.random() < 0.6:
            space = rng.choice((" ", " ", ""))
            signs = {"plus": "+", "minus": "-", "and": "and"}
            words = _SIGN.sub(lambda m: f"{m[1]}{space}{signs[m[2]]}{space}{m[3]}" if m[2] != "and" else m[0], words)
    if rng.random() < 0.25:
        long, short = rng.choice(_CONTRACTIONS)
        words = re.sub(rf"\b{long}\b", short, words)
    if rng.random() < 0.12:
        words = with_slip(words, rng)
    return _ending(_case(words, rng), rng)


def with_slip(words: str, rng: random.Random) -> str:
    """One letter of one plain word too few, twice, or swapped with the next; never in what the answer hangs on."""
    places = [i for i, word in enumerate(words.split()) if word in _SLIPPERY]
    if not places:
        return words
    parts = words.split()
    at = rng.choice(places)
    word = parts[at]
    i = rng.randrange(len(word) - 1)
    parts[at] = rng.choice((
        word[:i] + word[i + 1 :], word[: i + 1] + word[i:], word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    ))  # fmt: skip
    return " ".join(parts)


def _case(words: str, rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.45:
        return words
    if kind < 0.88:
        return " ".join("I" if word == "i" else word for word in (words[0].upper() + words[1:]).split(" "))
    return words.upper() if kind < 0.95 else words.title()


def _ending(words: str, rng: random.Random) -> str:
    return words + rng.choices(("?", "", ".", "!", " ?", "??"), (0.42, 0.38, 0.1, 0.05, 0.03, 0.02))[0]
