"""How much later a client hears an answer than the engine has it. ``python benchmarks/realtime.py [--turns 50]``

nano behind the server of this process; a client on a WebSocket says the demo's question as a microphone would, 100 ms
at a time, commits it, and waits for the first sound. The engine's own figure is of the same answers: from the complete
turn to the first sound; what the server adds is told of each answer, so that a busy machine does not blur it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from base64 import b64encode
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from websockets.sync.client import ClientConnection, connect

import descant
from descant.config import OUTPUT_RATE_HZ as RATE_HZ
from descant.inputs.audio_file import decode_wav
from descant.server.settings import ServerSettings
from descant.types import Budget, Finished
from tests.server.conftest import run

QUESTION = Path(__file__).resolve().parents[1] / "descant" / "assets" / "demo" / "question.wav"
RESULTS = Path(__file__).resolve().parent / "results" / "realtime.json"
CHUNK_S = 0.1
BY_HAND = {"audio": {"input": {"turn_detection": None}}}


def question() -> list[str]:
    """The demo's question as the client's chunks: base64 of PCM at 24 kHz."""
    said = decode_wav(QUESTION.read_bytes(), 16000, Budget())
    assert said is not None
    pcm = (np.clip(soxr.resample(said, 16000, RATE_HZ), -1, 1) * 32767).astype("<i2")
    step = round(CHUNK_S * RATE_HZ)
    return [b64encode(pcm[start : start + step].tobytes()).decode() for start in range(0, len(pcm), step)]


def send(plug: ClientConnection, kind: str, **fields: Any) -> None:
    plug.send(json.dumps({"type": kind, **fields}))


def wait_for(plug: ClientConnection, kind: str) -> None:
    while json.loads(plug.recv())["type"] != kind:
        pass


def turn(plug: ClientConnection, chunks: list[str]) -> float:
    """One question; seconds from the end of it to the first sound."""
    for chunk in chunks:
        send(plug, "input_audio_buffer.append", audio=chunk)
        time.sleep(CHUNK_S)
    begin = time.perf_counter()
    send(plug, "input_audio_buffer.commit")
    send(plug, "response.create")
    wait_for(plug, "response.output_audio.delta")
    heard = time.perf_counter() - begin
    wait_for(plug, "response.done")
    return heard


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=50)
    turns: int = parser.parse_args().turns
    own: list[float] = []
    chunks = question()
    heard = []
    with contextmanager(run)(descant.load("nano"), ServerSettings()) as running:
        figures_kept = running.server.gate.state.figures
        count = figures_kept.add

        def remember(finished: Finished) -> None:
            own.append(finished.timings.first_audio_s or 0.0)
            count(finished)

        figures_kept.add = remember  # type: ignore[method-assign]
        for _ in range(turns):
            with connect(f"ws{running.url.removeprefix('http')}/v1/realtime") as plug:
                send(plug, "session.update", session=BY_HAND)
                heard.append(turn(plug, chunks))
    added = [client - engine for client, engine in zip(heard, own, strict=True)]
    figures = {"turns": turns}
    for name, values in (("client", heard), ("engine", own), ("added", added)):
        p95 = sorted(values)[int(0.95 * (turns - 1))]
        figures |= {f"{name}_median_ms": round(1000 * statistics.median(values)), f"{name}_p95_ms": round(1000 * p95)}
    RESULTS.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
