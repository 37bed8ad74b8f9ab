"""The rows of the bench by name, and the choice among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from descant.bench import Shape
from descant.bench.answer import first_audio, whole_answer
from descant.bench.decode import decode
from descant.bench.harness import Bench, BenchLine
from descant.bench.live import idle, live_turn, tenth_turn
from descant.bench.nano import nano
from descant.bench.together import answers_together
from descant.bench.voices import voices_at_once
from descant.errors import OptionError


@dataclass(frozen=True)
class BenchRow:
    """A measurement, and the model that it needs."""

    measure: Callable[[Bench], list[BenchLine]]
    model: Shape


BENCH_ROWS: dict[str, BenchRow] = {
    "first-audio": BenchRow(first_audio, "bench-tiny"),
    "whole-answer": BenchRow(whole_answer, "bench-tiny"),
    "decode": BenchRow(decode, "0.5b"),
    "together": BenchRow(answers_together, "0.5b"),
    "live-turn": BenchRow(live_turn, "bench-tiny"),
    "tenth-turn": BenchRow(tenth_turn, "bench-tiny"),
    "idle": BenchRow(idle, "bench-tiny"),
    "nano": BenchRow(nano, "nano"),
    "voices": BenchRow(voices_at_once, "nano"),
}


def choose(names: Sequence[str] | None, model: str | None) -> list[str]:
    """The rows asked for, in the table's order; None: all. Raises OptionError for an unknown name, or for no row."""
    wanted = list(BENCH_ROWS) if names is None else list(names)
    unknown = [name for name in wanted if name not in BENCH_ROWS]
    if unknown:
        raise OptionError(f"no row {', '.join(map(repr, unknown))} in the bench; choose from {', '.join(BENCH_ROWS)}")
    chosen = [name for name, row in BENCH_ROWS.items() if name in wanted and model in (None, row.model)]
    if not chosen:
        raise OptionError(f"none of the rows {', '.join(wanted)} measures {model}; leave --rows or --model out")
    return chosen


def measure(bench: Bench, names: Sequence[str]) -> list[BenchLine]:
    """The lines of the named rows, in order."""
    lines: list[BenchLine] = []
    for name in names:
        bench.say(f"measuring {name} ...")
        lines += BENCH_ROWS[name].measure(bench)
    return lines
