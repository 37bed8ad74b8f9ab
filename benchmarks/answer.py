"""How soon and how fast an answer comes: python benchmarks/answer.py [--model nano] [--latency balanced] [--runs 5].

For each latency preset: seconds from the complete request to the first text and to the first sound, seconds of sound,
and the real-time factor (time taken / time of sound; under 1 keeps up with speaking). Medians over the runs; the first
run of each preset warms up and does not count. One thread unless OMP_NUM_THREADS says otherwise.
"""

from __future__ import annotations

import argparse
import statistics
from typing import get_args

import descant
from descant.types import AudioChunk, Finished, Latency, TextDelta

QUESTION = "What is seven plus five?"


def once(omni: descant.Omni, latency: Latency, seed: int) -> tuple[float, float, float, float]:
    """(first text, first sound, seconds of sound, real-time factor) of one answer."""
    first_text = first_sound = total = 0.0
    samples, rate = 0, 1
    for event in omni.chat([descant.user(QUESTION)], latency=latency, seed=seed):
        if isinstance(event, TextDelta):
            first_text = first_text or event.t
        elif isinstance(event, AudioChunk):
            first_sound = first_sound or event.t
            samples, rate = samples + len(event.samples), event.rate
        elif isinstance(event, Finished):
            total = event.t
    seconds = samples / rate
    return first_text, first_sound, seconds, total / seconds if seconds else float("inf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--latency", choices=get_args(Latency), default=None, help="one preset only")
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    omni = descant.load(given.model)
    print(f"{'latency':10}{'first text':>12}{'first sound':>13}{'sound':>9}{'rtf':>7}")
    for latency in [given.latency] if given.latency else get_args(Latency):
        rows = [once(omni, latency, seed) for seed in range(given.runs + 1)][1:]
        text, sound, seconds, rtf = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{latency:10}{text:10.3f} s{sound:11.3f} s{seconds:7.2f} s{rtf:7.2f}")


if __name__ == "__main__":
    main()
