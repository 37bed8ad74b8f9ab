"""Row: the embedded model, spoken to and speaking, on one core."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from descant.bench.harness import Bench, BenchLine, Target, figure_line, interleave, median, skipped, threads
from descant.types import Audio, Finished, Latency, Message, Timings, user
from descant.weights.fetch import MODELS_FOLDER, embedded

if TYPE_CHECKING:
    from descant.omni import Omni

QUESTION = MODELS_FOLDER / "demo" / "question.wav"
FIRST_AUDIO_BAR = Target("value <=", 0.3)
REAL_TIME = Target("value <=", 0.25)


def nano(bench: Bench) -> list[BenchLine]:
    """Seconds to the first sound after a spoken question is complete, and the real-time factor of the whole."""
    if "nano" not in embedded():
        return [skipped("nano", "its weights are not in this checkout; make train-nano makes them")]
    from descant.omni import load

    with threads(1):
        return spoken_rows(bench, load("nano"), QUESTION)


def spoken_rows(bench: Bench, omni: Omni, question: Path) -> list[BenchLine]:
    """Both figures at each latency, with the threads that are set; balanced, the default, is judged."""
    asked = user(Audio(str(question)))
    turns = interleave({name: partial(ask_nano, omni, asked, name) for name in get_args(Latency)}, bench.repeats)
    if None in [timings.rtf for side in turns.values() for timings in side]:
        return [skipped("nano", "it answered without a sound")]
    note = f"one core, spoken question given whole; median of {bench.repeats}"
    lines = []
    for latency, side in turns.items():
        first, rtf = (median([vars(timings)[figure] for timings in side]) for figure in ("first_audio_s", "rtf"))
        goals = (FIRST_AUDIO_BAR, REAL_TIME) if latency == "balanced" else (None, None)
        lines.append(figure_line(f"nano, {latency}: first audio after the question", first, goals[0], "s", note))
        lines.append(figure_line(f"nano, {latency}: real-time factor of the whole", rtf, goals[1], note=note))
    return lines


def ask_nano(omni: Omni, asked: Message, latency: Latency) -> Timings:
    """The timings of one answer; its clock starts when the question is complete, before it is decoded."""
    last = [event for event in omni.chat([asked], latency=latency, seed=0) if isinstance(event, Finished)]
    return last[0].timings
