"""Clients who leave at any moment, over HTTP and WebSocket: ``python -m tests.chaos.server --n 1000 --seed 1``.

They leave before they have asked, in the middle of what they ask, while they wait, in the text, in the sound, at the
end, and in a live talk: before the first word, while they speak, while they are answered. Some close, some reset.
Prints what was left behind (nothing may be), the median and the worst time until the server was free, and how the
process grew.
"""

from __future__ import annotations

import argparse
import base64
import json
import logging
import random
import socket
import statistics
import struct
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from websockets.sync.client import connect

import descant
from descant.server.settings import ServerSettings
from tests import tiny
from tests.chaos.disconnect import from_threads, open_files, slope, slots
from tests.server.conftest import KEY, Running
from tests.server.conftest import run as served

SPEECH = base64.b64encode((np.random.default_rng(0).standard_normal(4800) * 3000).astype("<i2").tobytes()).decode()
ASK = {"model": "tiny", "messages": [{"role": "user", "content": "hello there"}], "max_tokens": 400, "temperature": 1.5}
ASKS = [
    ("/v1/chat/completions", {**ASK, "stream": True}),
    ("/v1/chat/completions", {**ASK, "max_tokens": 40}),
    ("/v1/chat/completions", {**ASK, "stream": True, "modalities": ["text", "audio"], "audio": {"format": "pcm16"}}),
    ("/v1/responses", {"input": "hello", "stream": True, "max_output_tokens": 200}),
    ("/v1/audio/speech", {"input": "hello there. " * 20, "voice": "x", "response_format": "pcm"}),
]  # fmt: skip


@dataclass(frozen=True)
class Remains:
    """What remained when everybody had gone. shares: requests and sockets that are still counted as open; slope: KiB a
    client, after the warm-up."""

    pages: int
    slots: int
    shares: int
    tasks: int
    fds: int
    slope: float

    @property
    def nothing(self) -> bool:
        return not (self.pages or self.slots or self.shares or self.tasks > 0 or self.fds > 0)

    def __str__(self) -> str:
        counts = f"leaked_pages={self.pages} leaked_slots={self.slots} leaked_shares={self.shares}"
        return f"{counts} leaked_tasks={self.tasks} leaked_fds={self.fds}\nmemory_slope_kib_per_client={self.slope:.2f}"


class Leaver:
    """A client that leaves."""

    def __init__(self, server: Running, rng: random.Random):
        self.server, self.rng = server, rng
        self.port = int(server.url.rsplit(":", 1)[1])

    def visit(self) -> None:
        self.rng.choice([self.ask, self.ask, self.talk])()

    def ask(self) -> None:
        """A request, cut at any byte of it, or of its answer."""
        path, fields = self.rng.choice(ASKS)
        body = json.dumps(fields).encode()
        lines = [f"POST {path} HTTP/1.1", "host: localhost", f"authorization: Bearer {KEY}"]
        lines += ["content-type: application/json", f"content-length: {len(body)}", "", ""]
        sent = "\r\n".join(lines).encode() + body
        phase = self.rng.choice(["asking", "waiting", "reading", "reading", "end"])
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as plug:
            plug.sendall(sent[: self.rng.randrange(len(sent))] if phase == "asking" else sent)
            with suppress(OSError):
                if phase == "waiting":
                    time.sleep(self.rng.random() * 0.05)
                for _ in range({"reading": self.rng.randrange(1, 8), "end": 50}.get(phase, 0)):
                    if not plug.recv(4096):
                        break
            self.leave(plug)

    def leave(self, plug: socket.socket) -> None:
        """Close, or cut: then the other side hears of it by a reset."""
        if self.rng.random() < 0.5:
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def talk(self) -> None:
        """A live talk, cut anywhere."""
        address = f"ws://127.0.0.1:{self.port}/v1/realtime"
        headers = {"authorization": f"Bearer {KEY}"}
        with connect(address, additional_headers=headers, open_timeout=60, close_timeout=1) as line:
            with suppress(OSError, EOFError, TimeoutError):
                events = self.events()
                for event in events[: self.rng.randrange(len(events) + 1)]:
                    line.send(json.dumps(event))
                for _ in range(self.rng.randrange(6)):
                    line.recv(timeout=0.2)
            if self.rng.random() < 0.5:
                line.socket.shutdown(socket.SHUT_RDWR)

    def events(self) -> list[dict[str, object]]:
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}
        manual = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
        say: list[dict[str, object]] = [{"type": "input_audio_buffer.append", "audio": SPEECH}] * 4
        return [
            {"type": "session.update", "session": manual}, *say, {"type": "input_audio_buffer.commit"},
            {"type": "conversation.item.create", "item": item}, {"type": "response.create"}, *say,
            {"type": self.rng.choice(["response.cancel", "input_audio_buffer.clear"])}, {"type": "response.create"},
        ]  # fmt: skip


def tiny_server() -> Iterator[Running]:
    """A server of a tiny model."""
    with tempfile.TemporaryDirectory() as folder:
        decoding = descant.Decoding(solver="euler", points=3, early=True)
        omni = descant.load(tiny.write_descant(Path(folder) / "tiny"), latency=decoding)
        settings = ServerSettings(api_keys=(KEY,), model="tiny", vad="loudness", head_s=2, stall_s=2)
        yield from served(omni, settings)


def run(count: int, seed: int, threads: int = 4) -> Remains:
    """``count`` clients, from a few threads at once."""
    server = next(running := tiny_server())
    Leaver(server, random.Random("warm")).ask()
    server.idle()
    loop_tasks, files = tasks_of(server), open_files()
    memory = from_threads(lambda n: Leaver(server, random.Random(f"{seed}/{n}")).visit(), count, threads)
    left = after(server, loop_tasks, files, memory)
    running.close()
    return left


def after(server: Running, tasks: int, files: int, memory: list[tuple[int, float]]) -> Remains:
    """What is left, once everything had time to go."""
    end = time.monotonic() + 20
    gate = server.server.gate
    while time.monotonic() < end:
        ledger = server.omni.engine.ledger()
        shares = sum(counts.total() for counts in gate.shares.open.values())
        if ledger.idle and not shares and tasks_of(server) <= tasks and open_files() <= files:
            break
        time.sleep(0.05)
    pages = ledger.thinker_pages + ledger.talker_pages
    return Remains(pages, slots(ledger), shares, tasks_of(server) - tasks, open_files() - files, slope(memory))


def tasks_of(server: Running) -> int:
    """Requests and sockets that uvicorn still serves."""
    return len(server.server.server_state.tasks) + len(server.server.server_state.connections)


def cancel_times(count: int, seed: int) -> list[float]:
    """Seconds from a client's leaving until nothing is lent out, of clients one after the other."""
    server = next(running := tiny_server())
    times = []
    for number in range(count):
        Leaver(server, random.Random(f"{seed}/{number}")).ask()
        begin = time.perf_counter()
        while not server.omni.engine.ledger().idle:
            time.sleep(0.001)
        times.append(time.perf_counter() - begin)
    running.close()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    logging.getLogger("descant.server").setLevel(logging.ERROR)  # each client that leaves is a line
    # oneDNN keeps a kernel for each shape it has met, which would hide what is looked for
    with warnings.catch_warnings(action="ignore"), torch.backends.mkldnn.flags(enabled=False):
        print(run(given.n, given.seed))
    times = sorted(cancel_times(min(given.n, 100), given.seed))
    print(f"free_after_s median={statistics.median(times):.3f} p99={times[int(0.99 * (len(times) - 1))]:.3f}")


if __name__ == "__main__":
    main()
