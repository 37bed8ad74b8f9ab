"""Visitors who leave at random moments, on a running engine: ``python -m tests.chaos.disconnect --n 1000 --seed 1``.

Some ask once, some talk: they push sound and pictures in any cuts, are answered on threads and in event loops, cancel,
cut off, ask while the queue is full, close, or are simply gone. The stores are small, so that listeners lose their
pages to others. Prints what was left behind (nothing may be) and how the process grew, in KiB a visitor, after a
warm-up.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import os
import random
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from descant.engine.answer import Answer
from descant.engine.engine import Engine
from descant.engine.limits import Ledger, Limits
from descant.engine.live import LiveSession
from descant.errors import BusyError, DescantError
from descant.types import Sampling
from tests.engine import rig, talks
from tests.inputs import media

PAGE_KIB = os.sysconf("SC_PAGE_SIZE") / 1024
LIMITS = Limits(tokens=600, talker_tokens=800, sessions=4, live_sessions=6, waiting=2)
WARM = 0.4  # of the run: pages are remembered up to the limit, and every kind of visitor has been here
FRAMES = [media.picture(56, 56, seed=seed) for seed in range(3)]


def resident_kib() -> float:
    """What the process holds. What the C library has free, between blocks in use, goes back to the system first, where
    it can do that: otherwise its holes are measured."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_KIB


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@dataclass(frozen=True)
class Left:
    """What remained when everybody had gone. slots: all of the ledger but its pages. remembered: of the stores, the
    share that is kept for its key alone and lent to nobody. slope: KiB a visitor, after the warm-up."""

    pages: int
    slots: int
    tasks: int
    fds: int
    faults: int
    remembered: float
    slope: float

    @property
    def nothing(self) -> bool:
        return not (self.pages or self.slots or self.tasks or self.fds or self.faults)

    def __str__(self) -> str:
        counts = f"leaked_pages={self.pages} leaked_slots={self.slots} leaked_tasks={self.tasks} leaked_fds={self.fds}"
        rest = f"faults={self.faults} remembered_share={self.remembered:.2f}"
        return f"{counts}\n{rest}\nmemory_slope_kib_per_session={self.slope:.3f}"


class Visitor:
    """One that comes, takes a while, and leaves: politely, rudely, at its end, or before it began."""

    def __init__(self, engine: Engine, rng: random.Random):
        self.engine, self.rng = engine, rng

    def visit(self) -> None:
        try:
            self.rng.choice([self.ask_once, self.talk, self.talk])()
        except BusyError:
            time.sleep(0.002)

    def ask_once(self) -> None:
        rng, sampling = self.rng, Sampling(max_tokens=self.rng.randrange(1, 20))
        words = f"{rng.randrange(1000)} is a number" if rng.random() < 0.5 else "hello there"
        voice = rng.choice([None, rig.voice()])
        self.take(self.engine.submit(rig.request(words, text=sampling, seed=rng.randrange(99), voice=voice)))

    def talk(self) -> None:
        """A few turns, whatever may come of them."""
        rng = self.rng
        context, spoken = rng.choice([120, 4000]), rng.random() < 0.7
        session = talks.opened(self.engine, talks.terms(context=context, drop=rng.random() < 0.5, spoken=spoken))
        for _ in range(rng.randrange(1, 4)):
            for _ in range(rng.randrange(0, 5)):
                rng.choice([self.say, self.say, self.show, self.type])(session)
            try:
                self.take(session.respond(max_tokens=rng.choice([None, 2, 5])))
            except DescantError:
                time.sleep(0.001)
            if rng.random() < 0.3:
                session.cancel()
            if spoken and rng.random() < 0.3:
                self.heard(session)
        if rng.random() < 0.5:
            session.close()

    def say(self, session: LiveSession) -> None:
        start, count = self.rng.randrange(20000), self.rng.randrange(9000)
        pcm = talks.NOISE[start : start + count] * (np.nan if self.rng.random() < 0.05 else 1)
        self.try_to(lambda: session.push_audio(pcm, self.rng.choice([16000, 16000, 16000, 24000])))

    def show(self, session: LiveSession) -> None:
        self.try_to(lambda: session.push_frame(self.rng.choice(FRAMES), self.rng.random() * 2))

    def type(self, session: LiveSession) -> None:
        session.add(self.rng.choice(["hello", "what is it?", "tell me of the sea"]))

    def heard(self, session: LiveSession) -> None:
        self.try_to(lambda: session.truncate(self.rng.random()))

    def try_to(self, act: Callable[[], object]) -> None:
        """What is refused is refused, and that is all."""
        with suppress(DescantError):
            act()

    def take(self, answer: Answer) -> None:
        """Read it, or a part of it, in one of the ways there are."""
        manner = self.rng.choice(["stay", "leave", "drop", "cancel", "loop", "loop"])
        if manner == "cancel":
            answer.cancel()
        elif manner == "loop":
            asyncio.run(self.read_in_a_loop(answer))
        elif manner != "drop":
            patience = self.rng.randrange(0, 12)
            for i, _ in enumerate(answer):
                if manner == "leave" and i >= patience:
                    break

    async def read_in_a_loop(self, answer: Answer) -> None:
        """A task that is cancelled in the middle, or not."""

        async def read() -> int:
            return sum([1 async for _ in answer])

        task = asyncio.create_task(read())
        if self.rng.random() < 0.6:
            await asyncio.sleep(self.rng.random() * 0.02)
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def slots(ledger: Ledger) -> int:
    """All that is lent out but pages."""
    lent = dict(vars(ledger))
    return sum(lent.values()) - lent["thinker_pages"] - lent["talker_pages"]


def slope(memory: list[tuple[int, float]]) -> float:
    """KiB a visitor, over what came after the warm-up. memory: how many had gone, and the KiB then."""
    late = memory[int(len(memory) * WARM) :]
    return float(np.polyfit(*zip(*late, strict=True), 1)[0]) if len(late) > 1 else 0.0


def from_threads(visit: Callable[[int], object], count: int, threads: int) -> list[tuple[int, float]]:
    """``visit`` of each number below ``count``, from a few threads at once; gives how many had been, and the KiB of the
    process then, of every fifth. Raises what one of them raised, which ends all."""
    memory = list[tuple[int, float]]()
    todo = iter(range(count))
    lock, failed = threading.Lock(), list[BaseException]()

    def work() -> None:
        try:
            while not failed:
                with lock:
                    number = next(todo, None)
                if number is None:
                    return
                visit(number)
                if number % 5 == 0:
                    memory.append((number, resident_kib()))
        except BaseException as error:
            failed.append(error)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failed:
        raise failed[0]
    return memory


def run(count: int, seed: int, threads: int = 4) -> Left:
    """``count`` visitors, from a few threads at once."""
    engine = Engine(rig.models(), LIMITS)
    engine.start()
    tasks, files = threading.active_count(), open_files()
    memory = from_threads(lambda n: Visitor(engine, random.Random(f"{seed}/{n}")).visit(), count, threads)
    for _ in range(500):
        gc.collect()
        if engine.ledger().idle:
            break
        time.sleep(0.01)
    ledger, stores = engine.ledger(), (engine.worker.stages.stores.thinker, engine.worker.stages.stores.talker)
    left = Left(
        ledger.thinker_pages + ledger.talker_pages,
        slots(ledger),
        threading.active_count() - tasks,
        open_files() - files,
        engine.worker.idle_faults,
        max(store.remembered / store.limit for store in stores if store is not None),
        slope(memory),
    )
    engine.close()
    engine.worker.slots.check_pages()
    return left


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    # oneDNN keeps a kernel for each shape it has met, up to 1024, and visitors have many shapes: that cache fills for
    # thousands of visitors, and would hide what is looked for
    with warnings.catch_warnings(action="ignore"), torch.backends.mkldnn.flags(enabled=False):
        print(run(given.n, given.seed))


if __name__ == "__main__":
    main()
