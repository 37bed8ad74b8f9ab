"""Talks of several turns: questions that stand alone and questions that go on from what was said or shown.

A talk is written turn by turn over what it remembers: the last answer, the number in it, the picture shown last. How a
question comes, typed or spoken, is up to the ``Utter`` that is given: training takes clips with known features, the
evaluation says them on the spot. Everything is a pure function of the random state.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from descant.train.examples import Example, PastTurn
from descant.train.nano import domain, pictures, refusals, sayings, scenes, wording
from descant.train.nano.domain import Split
from descant.train.nano.wording import Asked
from descant.types import Image, Message, Part, Text, user

Utter = Callable[[str, random.Random], tuple[Asked, Part]]  # a task -> a question of it, and the part that asks it

LONGEST_TALK = 8  # turns
SHARES = {  # of the turns of a talk
    "ask": 10.0,
    "follow": 4.0,
    "again": 2.0,
    "picture": 3.0,
    "shown": 3.0,
    "fix": 1.0,
    "resume": 1.0,
    "outside": 1.5,
}  # fmt: skip; "resume": 0 leaves interruptions out, and else comes after each of them
WRONG_TALKS = 0.1  # share of talks with a wrong answer in them
SYSTEM_TALKS = 1 / 3  # share of talks with a system turn
CUT_CHATS = 0.5  # share of the longer answers of small talk that are interrupted
SHORTEST_CUT_WORDS = 5  # a reply of fewer words is not interrupted
_NUMBERS = {domain.number(n): n for n in range(101)}
_LAST_NUMBER = re.compile(r"\b(" + "|".join(sorted(_NUMBERS, key=len, reverse=True)) + r")\b")


@dataclass(frozen=True)
class TalkTurn:
    """One turn. kind: of SHARES; reply: the right answer; said: the one in the talk (wrong, or cut off, at times)."""

    kind: str
    task: str
    words: str
    parts: tuple[Part, ...]
    reply: str
    said: str

    @property
    def message(self) -> Message:
        return user(*self.parts)


@dataclass
class TalkMemory:
    """The things that a talk goes on from."""

    last: str = ""  # the answer before, as it stands in the talk
    number: int | None = None  # the last number in it
    scene: pictures.Scene | None = None  # the picture shown last
    asked: Asked | None = None  # the question before, if it stood alone
    cut: str = ""  # what was left of an answer that was cut off


@dataclass(frozen=True)
class Talk:
    turns: tuple[TalkTurn, ...]
    system: str = ""

    def example(self) -> Example:
        """The last turn as an example, after all before it."""
        past = tuple(PastTurn(t.message, t.said, learnt=t.said == t.reply) for t in self.turns[:-1])
        last = self.turns[-1]
        return Example("talk", last.message, last.reply, before=past, system=self.system)


@dataclass
class _Teller:
    utter: Utter
    rng: random.Random
    split: Split
    shares: Mapping[str, float] = field(default_factory=lambda: SHARES)
    memory: TalkMemory = field(default_factory=TalkMemory)

    def turn(self) -> TalkTurn:
        """A turn of a kind that fits what was said and shown so far."""
        if self.memory.cut:
            return self.resume()
        fitting = {
            "ask": True, "outside": True, "picture": True, "again": True, "follow": self.memory.number is not None,
            "shown": self.memory.scene is not None, "fix": self.memory.asked is not None, "resume": False,
        }  # fmt: skip
        kinds = [kind for kind, share in self.shares.items() if share and fitting[kind]]
        makers: Mapping[str, Callable[[], TalkTurn | None]] = {
            "ask": self.ask, "outside": self.outside, "picture": self.picture, "again": self.again,
            "follow": self.follow, "shown": self.shown, "fix": self.fix,
        }  # fmt: skip
        while True:
            kind = self.rng.choices(kinds, [self.shares[k] for k in kinds])[0]
            made = makers[kind]()
            if made is not None:
                return made

    def ask(self) -> TalkTurn:
        asked, part = self.utter(self.rng.choice((*wording.ASKING, "chat", "plus", "minus")), self.rng)
        self.memory.asked = asked
        return TalkTurn("ask", asked.task, asked.words, (part,), asked.reply, asked.reply)

    def outside(self) -> TalkTurn:
        asked, part = self.utter("outside", self.rng)
        return TalkTurn("outside", "outside", asked.words, (part,), asked.reply, asked.reply)

    def again(self) -> TalkTurn:
        asked, part = self.utter("again", self.rng)
        said = self.memory.last or refusals.NOT_SAID
        return TalkTurn("again", "again", asked.words, (part,), said, said)

    def follow(self) -> TalkTurn | None:
        """ "And plus three": on from the last number; None where it would leave the numbers that nano adds."""
        assert self.memory.number is not None
        task = self.rng.choice(("more", "less"))
        asked, part = self.utter(task, self.rng)
        other = int(asked.core[0])
        total = self.memory.number + other if task == "more" else self.memory.number - other
        if not 0 <= total <= domain.MAX_NUMBER:
            return None
        said = domain.reply("plus" if task == "more" else "minus", (self.memory.number, other))
        return TalkTurn("follow", task, asked.words, (part,), said, said)

    def picture(self) -> TalkTurn:
        scene = scenes.draw_scene(self.rng, self.split)
        self.memory.scene = scene
        return self._about(scene, (Image(pictures.render_scene(scene)),), "picture")

    def shown(self) -> TalkTurn:
        """About the picture that was shown before."""
        assert self.memory.scene is not None
        return self._about(self.memory.scene, (), "shown")

    def _about(self, scene: pictures.Scene, shown: tuple[Part, ...], kind: str) -> TalkTurn:
        task = self.rng.choice(("colour", "shape", "count", "describe") if shown else ("colour", "shape", "count"))
        asked, part = self.utter(task, self.rng)
        said = domain.picture_reply(task, scene.colour, scene.shape, scene.count)
        return TalkTurn(kind, task, asked.words, (*shown, part), said, said)

    def fix(self) -> TalkTurn | None:
        """A correction: the question before once more, about something else. It is typed or said as one question."""
        assert self.memory.asked is not None
        asked, part = self.utter(f"fix:{self.memory.asked.task}", self.rng)
        self.memory.asked = asked
        return TalkTurn("fix", asked.task, asked.words, (part,), asked.reply, asked.reply)

    def resume(self) -> TalkTurn:
        asked, part = self.utter("resume", self.rng)
        said = self.memory.cut
        self.memory.cut = ""
        return TalkTurn("resume", "resume", asked.words, (part,), said, said)

    def settle(self, turn: TalkTurn, may_cut: bool) -> TalkTurn:
        """Remember a turn. may_cut: at times only the beginning of its answer is heard; the next turn asks for more."""
        if turn.kind not in ("ask", "fix"):
            self.memory.asked = None
        cuts = cut_places(turn.reply) if may_cut and turn.task == "chat" else []
        if cuts and self.shares.get("resume", 0.0) and self.rng.random() < CUT_CHATS:
            said, self.memory.cut = self.rng.choice(cuts)
            turn = replace(turn, said=said)
        self.memory.last = turn.said
        found = _LAST_NUMBER.findall(domain.normalise_words(turn.said))
        self.memory.number = _NUMBERS[found[-1]] if found and turn.task in NUMBERED else None
        return turn


NUMBERED = ("plus", "minus", "next", "before", "more", "less")  # answers that end in a number to go on from


def cut_places(reply: str) -> list[tuple[str, str]]:
    """Where a reply may be interrupted: (what was heard, the rest as a sentence); whole words on both sides."""
    words = reply.split()
    if len(words) < SHORTEST_CUT_WORDS:
        return []
    places = range(2, len(words) - 1)
    return [(" ".join(words[:at]), _rest(words[at:])) for at in places]


def _rest(words: list[str]) -> str:
    text = " ".join(words)
    return text[0].upper() + text[1:]


def resumed_replies() -> list[str]:
    """Every rest that an interrupted answer can have, sorted: of small talk, which alone is long enough."""
    return sorted({rest for said, _ in wording.SMALL_TALK.values() for _, rest in cut_places(said)})


def draw_talk(
    utter: Utter, rng: random.Random, split: Split, turns: int = 0, shares: Mapping[str, float] = SHARES
) -> Talk:
    """A talk of ``turns`` turns (0: two to eight). Its last turn is always answered rightly and whole."""
    count = turns or rng.randrange(2, LONGEST_TALK + 1)
    teller = _Teller(utter, rng, split, shares)
    wrong = rng.randrange(count) if rng.random() < WRONG_TALKS and split == "train" else count
    told: list[TalkTurn] = []
    for place in range(count):
        turn = teller.turn()
        last = place == count - 1
        if place == wrong and not last and turn.kind in ("ask", "picture", "shown"):
            turn = replace(turn, said=wrong_reply(turn, rng))
        told.append(teller.settle(turn, may_cut=not last and turn.said == turn.reply))
    system = rng.choice(sayings.SYSTEMS) if rng.random() < SYSTEM_TALKS else ""
    return Talk(tuple(told), system)


def wrong_reply(turn: TalkTurn, rng: random.Random) -> str:
    """An answer to another question of the same task."""
    while True:
        if turn.task in wording.ASKING:
            said = wording.right_reply(turn.task, wording.draw_core(turn.task, rng))
        else:
            scene = pictures.draw_picture(rng, "train", most=scenes.MOST_SHAPES)
            said = domain.picture_reply(turn.task, scene.colour, scene.shape, scene.count)
        if said != turn.reply:
            return said


def draw_fix(task: str, rng: random.Random, split: Split) -> Asked:
    """A question that corrects the one before."""
    asked = wording.draw_asked(task, rng, split)
    return replace(asked, words=rng.choice(sayings.WAYS_FIX).format(q=asked.words))


def draw_question(task: str, rng: random.Random, split: Split) -> Asked:
    """The question that an ``Utter`` is asked for: of a task, or "fix:TASK"."""
    fixing, _, fixed = task.partition(":")
    return draw_fix(fixed, rng, split) if fixing == "fix" else wording.draw_asked(task, rng, split)


def type_question(task: str, rng: random.Random, split: Split) -> tuple[Asked, Part]:
    """The same, typed."""
    asked = draw_question(task, rng, split)
    return asked, Text(wording.typed_out(asked.words, rng))
