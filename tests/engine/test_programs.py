"""Random programs: live sessions and plain answers do anything in any order on one small engine, and nothing is left.

Whatever is refused is refused with a typed error; nothing fails inside; nobody waits for ever.
"""

from __future__ import annotations

import gc
import random
from contextlib import suppress

import numpy as np
import pytest

from descant.engine.answer import Answer
from descant.engine.engine import Engine
from descant.engine.limits import Limits
from descant.engine.live import LiveSession
from descant.engine.scheduler import SchedulerConfig
from descant.errors import DescantError
from descant.types import Sampling
from tests.engine import rig, talks
from tests.inputs import media

PROGRAMS, LENGTH, ROOMS = 100, 60, 3
WORDS = ["hello", "what is it?", "a", "", "tell me of the sea and of the ships on it, and of the sky above"]


def limits(rng: random.Random) -> Limits:
    """So little room that listeners are evicted, and that some turns never fit."""
    pace = SchedulerConfig(rng.choice([1, 5, 64]), rng.choice([1, 3]), *(rng.randrange(1, 5) for _ in range(3)))
    page, tokens, rows = rng.choice([1, 4, 16]), rng.choice([150, 300, 900]), rng.choice([150, 300, 900])
    return Limits(tokens, rows, rng.randrange(1, 4), 4, rng.randrange(1, 4), rng.choice([3, 4096]), page, pace)


class Program:
    """Somebody who does not know what they are doing."""

    def __init__(self, seed: int):
        self.rng = random.Random(seed)
        self.engine = Engine(talks.MODELS, limits(self.rng))
        self.sessions: list[LiveSession] = []
        self.answers: list[Answer] = []

    def open(self) -> None:
        if len(self.sessions) < ROOMS:
            context = self.rng.choice([60, 150, 4000])
            how = talks.terms(context=context, drop=self.rng.random() < 0.5, spoken=self.rng.random() < 0.8)
            self.sessions.append(talks.opened(self.engine, how))

    def push(self) -> None:
        count = self.rng.choice([0, 1, 100, 4000, 9000])
        pcm = talks.NOISE[:count] * np.float32(self.rng.choice([1, 1e-3, np.nan] if self.rng.random() < 0.2 else [1]))
        self.session.push_audio(pcm, self.rng.choice([16000, 16000, 16000, 8000]))

    def frame(self) -> None:
        side = self.rng.choice([56, 56, 56, 84])
        self.session.push_frame(media.picture(56, side), self.rng.random() * 3)

    def add(self) -> None:
        self.session.add(self.rng.choice(WORDS))

    def respond(self) -> None:
        self.keep(self.session.respond(max_tokens=self.rng.choice([None, 1, 3, 200])))

    def submit(self) -> None:
        text = Sampling(max_tokens=self.rng.randrange(1, 9))
        mute = {"voice": None} if self.rng.random() < 0.5 else {"speech": talks.SPEECH}
        self.keep(self.engine.submit(rig.request(self.rng.choice(WORDS) or "b", text=text, **mute)))

    def keep(self, answer: Answer) -> None:
        if self.rng.random() < 0.9:
            self.answers.append(answer)

    def cancel(self) -> None:
        self.session.cancel()

    def cut(self) -> None:
        self.session.truncate(self.rng.choice([-1.0, 0.0, 0.1, 0.3, 9.0, float("nan")]))

    def close(self) -> None:
        self.session.close()
        if self.rng.random() < 0.7:
            self.sessions.remove(self.session)

    def drop(self) -> None:
        self.sessions.remove(self.session)

    def drop_answer(self) -> None:
        self.answers.remove(self.rng.choice(self.answers))

    def cancel_answer(self) -> None:
        self.rng.choice(self.answers).cancel()

    def strangers(self) -> None:
        """Numbers that never were, or that are gone, or are of another kind."""
        number = self.rng.randrange(-1, 30)
        slots = self.engine.worker.slots.values()
        known = {slot.number for slot in slots if slot.conversation is not None}
        known |= {slot.answer_number for slot in slots if slot.answer_number} | set(self.engine.worker.pending)
        if number not in known:
            self.engine.cancel(number)
            self.engine.close_session(number)
            self.engine.truncate_reply(number, number, 1)
            self.engine.update_draft(number, talks.FORMATTER.closing())

    def step(self) -> None:
        for _ in range(self.rng.choice([1, 1, 2, 5, 30])):
            self.engine.worker.step()
            talks.sound(self.engine)

    def run(self) -> None:
        plain = [self.open, self.submit, self.strangers, self.step, self.step, self.step]
        live = [self.push, self.push, self.frame, self.add, self.add, self.respond, self.respond, self.cancel]
        live += [self.cut, self.close, self.drop]
        for _ in range(LENGTH):
            acts = (
                plain
                + (live if self.sessions else [])
                + ([self.drop_answer, self.cancel_answer] if self.answers else [])
            )
            self.session = self.rng.choice(self.sessions) if self.sessions else None
            with suppress(DescantError):  # anything else is a fault
                self.rng.choice(acts)()

    def end(self) -> None:
        """Everybody takes what they asked for, and goes."""
        talks.served(self.engine, *self.answers)
        self.session = None
        self.sessions.clear()
        self.answers.clear()
        gc.collect()
        talks.empty(self.engine)


@pytest.mark.parametrize("seed", range(PROGRAMS))
def test_any_program_ends_well(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    program = Program(seed)
    program.run()
    program.end()
    assert not caplog.records, caplog.text
