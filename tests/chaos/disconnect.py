"""Sessions that leave at random moments, on a running engine: ``python -m tests.chaos.disconnect --n 1000 --seed 1``.

Prints what was left behind (nothing may be) and how the process grew, in KiB for each session of the second half.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from descant.engine.engine import Engine
from descant.engine.limits import Limits
from descant.errors import BusyError
from descant.types import Sampling
from tests.engine import rig

PAGE_KIB = os.sysconf("SC_PAGE_SIZE") / 1024


def resident_kib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_KIB


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@dataclass(frozen=True)
class Left:
    """What remained when everybody had gone. slope: KiB a session, over the second half."""

    pages: int
    slots: int
    tasks: int
    fds: int
    slope: float

    def __str__(self) -> str:
        counts = f"leaked_pages={self.pages} leaked_slots={self.slots} leaked_tasks={self.tasks} leaked_fds={self.fds}"
        return f"{counts}\nmemory_slope_kib_per_session={self.slope:.3f}"


def visit(engine: Engine, rng: random.Random) -> None:
    """One session that comes, reads for a while and leaves: politely, rudely, at its end, or before it began."""
    sampling = Sampling(max_tokens=rng.randrange(1, 20))
    request = rig.request("hello there", text=sampling, seed=rng.randrange(99), voice=rng.choice([None, rig.voice()]))
    try:
        answer = engine.submit(request)
    except BusyError:
        time.sleep(0.002)
        return
    manner = rng.choice(["stay", "cancel", "drop", "cancel at once"])
    if manner == "cancel at once":
        answer.cancel()
    patience = rng.randrange(0, 12)
    for i, _ in enumerate(answer):
        if manner != "stay" and i >= patience:
            break
    if manner == "cancel":
        answer.cancel()


def run(count: int, seed: int, visitors: int = 4) -> Left:
    """``count`` sessions from a few threads at once."""
    engine = Engine(rig.models(), Limits(sessions=6, waiting=3))
    engine.start()
    tasks, files, memory = threading.active_count(), open_files(), []

    def worker(number: int) -> None:
        rng = random.Random(f"{seed}/{number}")
        for _ in range(count // visitors):
            visit(engine, rng)
            if number == 0:
                memory.append(resident_kib())

    threads = [threading.Thread(target=worker, args=(n,)) for n in range(visitors)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    for _ in range(500):
        if engine.ledger().idle:
            break
        time.sleep(0.01)
    ledger = engine.ledger()
    half = memory[len(memory) // 2 :]
    slope = float(np.polyfit(np.arange(len(half)) * visitors, half, 1)[0]) if len(half) > 1 else 0.0
    left = Left(
        ledger.thinker_pages + ledger.talker_pages,
        ledger.sessions + ledger.waiting,
        threading.active_count() - tasks,
        open_files() - files,
        slope,
    )
    engine.check()
    engine.close()
    return left


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(run(given.n, given.seed))


if __name__ == "__main__":
    main()
