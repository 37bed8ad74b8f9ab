"""What decoding in a process apart costs: the start of it, and each file. ``python benchmarks/decoder.py``

Interleaved with decoding in this process, medians of the same files: the demo's picture and video, 10 s of FLAC, and a
picture of 8 megapixels.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from PIL import Image

from descant.config import InputsConfig
from descant.inputs.decoder import CHILDREN, Child, decode_apart
from descant.inputs.decoder_child import run_job
from descant.inputs.wire import DecodeJob
from descant.types import Budget

DEMO = Path(__file__).resolve().parents[1] / "descant" / "assets" / "demo"
TURNS = 30
STARTS = 7


def large_picture() -> bytes:
    """A JPEG of 8 megapixels."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 255, (245, 326, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize((3264, 2448)).save(buffer, "JPEG")
    return buffer.getvalue()


def flac() -> bytes:
    """10 s of noise as FLAC."""
    noise = (np.random.default_rng(0).standard_normal(160_000) * 3000).astype(np.int16)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(noise[None], format="s16", layout="mono")
        frame.sample_rate = 16000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return buffer.getvalue()


def jobs() -> dict[str, DecodeJob]:
    budget = Budget()
    inputs = InputsConfig()
    return {
        "demo picture": DecodeJob("image", (DEMO / "stars.png").read_bytes(), "PNG", budget, inputs),
        "picture, 8 megapixels": DecodeJob("image", large_picture(), "JPEG", budget, inputs),
        "10 s of FLAC": DecodeJob("audio", flac(), "flac", budget, rate=16000),
        "demo video": DecodeJob("video", (DEMO / "video.mp4").read_bytes(), "mov", budget, inputs, with_sound=True),
    }


def milliseconds(act: Callable[[], object]) -> float:
    begin = time.perf_counter()
    act()
    return 1000 * (time.perf_counter() - begin)


def start(job: DecodeJob) -> None:
    child = Child()
    child.ask(job)
    child.end()


def main() -> None:
    all_jobs = jobs()
    first = all_jobs["demo picture"]
    starts = statistics.median(milliseconds(lambda: start(first)) for _ in range(STARTS))
    print(f"start, first file and end: {starts:.0f} ms")
    CHILDREN.start()
    for name, job in all_jobs.items():
        here: list[float] = []
        apart: list[float] = []
        for _ in range(TURNS):
            here.append(milliseconds(lambda job=job: run_job(job)))  # type: ignore[misc]
            apart.append(milliseconds(lambda job=job: decode_apart(job)))  # type: ignore[misc]
        print(f"{name}: {statistics.median(here):.2f} ms here, {statistics.median(apart):.2f} ms apart")


if __name__ == "__main__":
    main()
