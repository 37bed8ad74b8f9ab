"""The means of every row of the bench: sides that take turns, medians, and lines that are judged."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch

from descant.bench import Peer
from descant.bench.shapes import FULL, Scale
from descant.engine.answer import Answer
from descant.engine.engine import Engine
from descant.types import Event

K = TypeVar("K")
T = TypeVar("T")
Sense = Literal["ratio >=", "growth <=", "value >=", "value <="]


@dataclass(frozen=True)
class Target:
    """A promise about a line: which of its figures, in which direction, and how much."""

    sense: Sense
    bound: float

    def met(self, value: float, ratio: float | None) -> bool | None:
        """None: there is nothing to judge, because no peer was measured."""
        if self.sense == "ratio >=":
            return None if ratio is None else ratio >= self.bound
        if self.sense == "growth <=":
            return None if ratio is None else ratio <= self.bound
        return value >= self.bound if self.sense == "value >=" else value <= self.bound


@dataclass(frozen=True)
class BenchLine:
    """One line of the table. value None: skipped, ``note`` says why. ratio: how many times better than the peer; where
    growth is judged, how many times as much as the peer."""

    name: str
    unit: str
    value: float | None
    peer: float | None = None
    ratio: float | None = None
    target: Target | None = None
    met: bool | None = None
    note: str = ""


@dataclass(frozen=True, eq=False)
class Bench:
    """The settings of a run. eq False: a bench is itself, so that what it measured once can be looked up by it."""

    repeats: int = 5
    compare: Peer | None = None
    scale: Scale = FULL
    say: Callable[[str], None] = print


def interleave(sides: Mapping[K, Callable[[], T]], repeats: int, warmups: int = 1) -> dict[K, list[T]]:
    """Each side in turn, A B A B ..., so that a slow minute of the machine is everybody's.

    The first ``warmups`` rounds are run and not kept.
    """
    kept: dict[K, list[T]] = {name: [] for name in sides}
    for turn in range(warmups + repeats):
        for name, side in sides.items():
            result = side()
            if turn >= warmups:
                kept[name].append(result)
    return kept


def stepped(engine: Engine, answer: Answer) -> Iterator[Event]:
    """The events of an answer of an engine that has no thread: its steps are made here."""
    while True:
        while answer.events.empty():
            engine.worker.step()
        item = answer.events.get()
        if isinstance(item, Exception):
            raise item
        if item is None:
            return
        yield item


def median(values: Sequence[float]) -> float:
    return float(statistics.median(values))


def time_line(name: str, ours: float, theirs: float | None, target: Target | None = None, note: str = "") -> BenchLine:
    """Seconds: less is better."""
    return judged(BenchLine(name, "s", ours, theirs, None if theirs is None else theirs / ours, target, note=note))


def rate_line(name: str, ours: float, theirs: float | None, target: Target | None = None, note: str = "") -> BenchLine:
    """Something a second: more is better."""
    return judged(BenchLine(name, "1/s", ours, theirs, None if theirs is None else ours / theirs, target, note=note))


def growth_line(name: str, after: float, before: float, target: Target | None = None, note: str = "") -> BenchLine:
    """Seconds of the same thing before and after something has grown."""
    return judged(BenchLine(name, "s", after, before, after / before, target, note=note))


def figure_line(name: str, value: float, target: Target | None = None, unit: str = "", note: str = "") -> BenchLine:
    """A figure that has no peer."""
    return judged(BenchLine(name, unit, value, target=target, note=note))


def skipped(name: str, why: str) -> BenchLine:
    return BenchLine(name, "", None, note=f"skipped: {why}")


def judged(line: BenchLine) -> BenchLine:
    if line.target is None or line.value is None:
        return line
    return replace(line, met=line.target.met(line.value, line.ratio))


@contextmanager
def threads(count: int | None) -> Iterator[int]:
    """Run with ``count`` threads (None: as it is), and put back what was."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
