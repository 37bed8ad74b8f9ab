"""How natural nano's voice is, beside its teacher's: DNSMOS of the same words, and the joins between windows.

    pip install speechmos librosa onnxruntime        (an environment of its own will do)
    python benchmarks/naturalness.py --count 30 --json benchmarks/results/naturalness.json

DNSMOS (arXiv 2110.01763) predicts what listeners would say of the whole, of the speech and of the background, from 1
to 5. A join is where one piece of sound ends and the next begins. Its step is the largest difference of neighbouring
samples within half a millisecond, in units of their root mean square over the 20 ms on either side; a click is a step
that other places of the same answers do not have.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
import soxr

from descant.evals import wide
from descant.evals.tasks import EvalItem
from descant.omni import Omni, load
from descant.train.nano.speech_data import Flite
from descant.types import AudioChunk, Finished

EAR_RATE_HZ = 16_000  # Hz; what DNSMOS hears
NEAR, AROUND = 12, 480  # samples at 24 kHz: half a millisecond, and 20 ms
PLACES = 20  # an answer, for the steps elsewhere
KINDS = ("ovrl_mos", "sig_mos", "bak_mos", "p808_mos")


def answer(omni: Omni, item: EvalItem) -> tuple[str, list[np.ndarray]]:
    """The text of an answer, and its sound as it came, piece by piece."""
    pieces: list[np.ndarray] = []
    text = ""
    for event in omni.chat([item.question], seed=0):
        if isinstance(event, AudioChunk):
            pieces.append(event.samples)
        elif isinstance(event, Finished):
            text = event.text
    return text, pieces


def steps_at(samples: np.ndarray, places: Sequence[int]) -> Iterator[float]:
    """The step at each place (see above) that has speech around it."""
    differences = np.abs(np.diff(samples.astype(np.float64)))
    for place in places:
        around = differences[max(0, place - AROUND) : place + AROUND]
        level = float(np.sqrt(np.mean(around**2))) if len(around) else 0.0
        if level > 1e-4:
            yield float(differences[max(0, place - NEAR) : place + NEAR].max()) / level


def opinion(samples: np.ndarray, rate_hz: int) -> list[float]:
    """DNSMOS of one sound, in the order of ``KINDS``."""
    dnsmos = import_module("speechmos.dnsmos")  # of an environment of its own
    heard = np.clip(soxr.resample(samples.astype(np.float32), rate_hz, EAR_RATE_HZ), -1, 1)
    told = dnsmos.run(heard, EAR_RATE_HZ)
    return [float(told[kind]) for kind in KINDS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    omni, teacher = load(given.model), Flite()
    own: list[list[float]] = []
    theirs: list[list[float]] = []
    joins: list[float] = []
    elsewhere: list[float] = []
    for number, item in enumerate(wide.reply_items(given.count, 0)):
        text, pieces = answer(omni, item)
        if not pieces:
            continue
        whole = np.concatenate(pieces)
        ends = np.cumsum([len(piece) for piece in pieces])[:-1].tolist()
        rng = random.Random(f"places/{number}")
        joins += steps_at(whole, ends)
        middle = range(AROUND, max(AROUND + 1, len(whole) - AROUND))
        elsewhere += steps_at(whole, [rng.choice(middle) for _ in range(PLACES)])
        own.append(opinion(whole, 24_000))
        theirs.append(opinion(teacher.speak(text)[0], 24_000))
    result = {
        "command": f"python benchmarks/naturalness.py --count {given.count}",
        "dnsmos": {
            name: dict(zip(KINDS, np.round(np.mean(rows, axis=0), 2).tolist(), strict=True))
            for name, rows in (("nano", own), ("teacher", theirs))
        },
        "steps": {
            name: {"places": len(steps), "median": round(float(np.median(steps)), 2),
                   "p95": round(float(np.percentile(steps, 95)), 2), "largest": round(max(steps), 2)}
            for name, steps in (("joins", joins), ("elsewhere", elsewhere))
        },
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
