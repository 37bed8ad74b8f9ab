"""The rows of the bench by name, and the choice among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from descant.bench import Shape
from descant.bench.answer import first_audio, whole_answer
from descant.bench.decode import decode
from descant.bench.harness import Bench, Line
from descant.bench.live import idle, live_turn, tenth_turn
from descant.bench.nano import nano
from descant.bench.together import together
from descant.bench.voices import voices
from descant.errors import OptionError


@dataclass(frozen=True)
class Row:
    """What is measured, and the model that it needs."""

    measure: Callable[[Bench], list[Line]]
    model: Shape


ROWS: dict[str, Row] = {
    "first-audio": Row(first_audio, "bench-tiny"),
    "whole-answer": Row(whole_answer, "bench-tiny"),
    "decode": Row(decode, "0.5b"),
    "together": Row(together, "0.5b"),
    "live-turn": Row(live_turn, "bench-tiny"),
    "tenth-turn": Row(tenth_turn, "bench-tiny"),
    "idle": Row(idle, "bench-tiny"),
    "nano": Row(nano, "nano"),
    "voices": Row(voices, "nano"),
}


def choose(names: Sequence[str] | None, model: str | None) -> list[str]:
    """The rows asked for, in the table's order; None: all. Raises OptionError for an unknown name, or for no row."""
    wanted = list(ROWS) if names is None else list(names)
    unknown = [name for name in wanted if name not in ROWS]
    if unknown:
        raise OptionError(f"no row {', '.join(map(repr, unknown))} in the bench; choose from {', '.join(ROWS)}")
    chosen = [name for name, row in ROWS.items() if name in wanted and model in (None, row.model)]
    if not chosen:
        raise OptionError(f"none of the rows {', '.join(wanted)} measures {model}; leave --rows or --model out")
    return chosen


def measure(bench: Bench, names: Sequence[str]) -> list[Line]:
    """The lines of the named rows, in order."""
    lines: list[Line] = []
    for name in names:
        bench.say(f"measuring {name} ...")
        lines += ROWS[name].measure(bench)
    return lines
