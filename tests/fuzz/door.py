"""Damaged media at the door: ``python -m tests.fuzz.door --n 50000``.

One small file of every format, with bytes changed, cut out, doubled and exchanged. Nothing but a MediaError may come of
it, and what is read is within its budget. Prints what was tried.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter

import numpy as np

from descant.config import InputsConfig
from descant.errors import MediaError
from descant.inputs import door
from descant.types import Budget, Clip, MediaKind
from tests.inputs.corpus import corpus

BUDGET = Budget(image_pixels=4_000_000, audio_s=20, video_s=20, image_cpu_s=2, audio_cpu_s=2, video_cpu_s=4)
INTERESTING = (b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\x80\0\0\0")


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A file with a few faults."""
    spoilt = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        at, end = sorted(rng.randrange(len(spoilt) + 1) for _ in range(2))
        match rng.randrange(6):
            case 0:
                spoilt[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                put = rng.choice(INTERESTING)
                spoilt[at : at + len(put)] = put
            case 2:
                del spoilt[at : min(end, at + 64)]
            case 3:
                spoilt[at:at] = spoilt[at : min(end, at + 64)]
            case 4:
                spoilt[at:end] = spoilt[at:end][::-1]
            case _:
                del spoilt[max(1, at) :]
        if not spoilt:
            spoilt = bytearray(b"\0")
    return bytes(spoilt)


def opened(kind: MediaKind, data: bytes) -> list[np.ndarray]:
    """The arrays that a file becomes. Raises MediaError."""
    if kind == "image":
        return [door.open_image(data, BUDGET, InputsConfig())]
    if kind == "audio":
        return [door.open_audio(data, 16_000, BUDGET)]
    clip: Clip = door.open_video(data, InputsConfig(), BUDGET, with_sound=None)
    return [clip.frames, *([] if clip.sound is None else [clip.sound])]


def run(count: int, seed: int = 0) -> tuple[Counter[str], list[str]]:
    """(outcomes by code, faults) of so many files."""
    files = list(corpus().items())
    outcomes: Counter[str] = Counter()
    faults: list[str] = []
    for number in range(count):
        rng = random.Random(f"{seed}/{number}")
        name, (kind, data) = rng.choice(files)
        kind = kind if rng.random() < 0.9 else rng.choice(["image", "audio", "video"])
        try:
            arrays = opened(kind, damaged(data, rng))
        except MediaError as error:
            outcomes[error.code] += 1
            if error.code.endswith(".decode_failed") and "crashed" in str(error):
                faults.append(f"{seed}/{number} {name} as {kind}: {error}")
        except BaseException as error:
            faults.append(f"{seed}/{number} {name} as {kind}: {type(error).__name__} {error}")
        else:
            outcomes["read"] += 1
            if sum(array.nbytes for array in arrays) > BUDGET.decoder_bytes:
                faults.append(f"{seed}/{number} {name} as {kind}: more than its budget")
            if any(array.dtype.kind == "f" and not np.isfinite(array).all() for array in arrays):
                faults.append(f"{seed}/{number} {name} as {kind}: numbers that are none")
    return outcomes, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    outcomes, faults = run(given.n, given.seed)
    print("\n".join(faults))
    print(f"door: tried={given.n} failures={len(faults)} outcomes={dict(outcomes.most_common(8))}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
