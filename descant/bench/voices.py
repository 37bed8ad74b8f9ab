"""Row: how many voices the embedded model speaks at once in real time."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from descant.bench.harness import Bench, BenchLine, Target, figure_line, interleave, median, skipped
from descant.types import Finished
from descant.weights.fetch import embedded

if TYPE_CHECKING:
    from descant.omni import Omni

AT_ONCE = Target("value >=", 4.0)
SPOKEN_TEXT = "Seven plus five is twelve. The opposite of hot is cold. After monday comes tuesday."


def voices_at_once(bench: Bench) -> list[BenchLine]:
    """The largest number of voices, all begun at the same moment, none of which is ever late for its listener."""
    if "nano" not in embedded():
        return [skipped("voices at once", "nano's weights are not in this checkout; make train-nano makes them")]
    from descant.omni import load

    with closing(load("nano")) as omni:
        return voices_in_time(bench, omni)


def voices_in_time(bench: Bench, omni: Omni) -> list[BenchLine]:
    """Under-runs of each number of voices; the median over the turns decides."""
    turns = interleave({n: partial(underruns, omni, n) for n in bench.scale.voices}, bench.repeats)
    late = {n: median(turns[n]) for n in turns}
    fine = 0
    for n in late:
        if late[n]:
            break
        fine = n
    counted = ", ".join(f"{n}: {count:g}" for n, count in late.items())
    note = (
        f"balanced, the worker on one core; each says {SPOKEN_TEXT!r}; under-runs of so many voices: {counted}; "
        f"median of {bench.repeats}"
    )
    return [figure_line("nano, balanced: voices at once without an under-run", fine, AT_ONCE, note=note)]


def underruns(omni: Omni, count: int) -> int:
    """Count the times, over all voices, that a listener who plays from the first sound on had nothing to hear."""
    answers = [omni.speak(SPOKEN_TEXT, latency="balanced", seed=seed) for seed in range(count)]
    last = [event for answer in answers for event in answer if isinstance(event, Finished)]
    return sum(end.usage.underruns for end in last)
