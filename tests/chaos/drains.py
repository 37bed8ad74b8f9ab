"""Servers that are told to stop while they answer: ``python -m tests.chaos.drains --n 100 --streams 8``.

Each time a server begins, some clients begin to read answers, the server gets SIGTERM, and every answer must come to
its end. What is asked after the signal must be refused with 503. Prints how many streams were dropped.
"""

from __future__ import annotations

import argparse
import json
import signal
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

import descant
from descant.server.settings import ServerSettings
from tests import tiny
from tests.server.conftest import KEY, Running
from tests.server.conftest import run as served

ASK = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "stream": True, "temperature": 1.5}
ENDS_S = 30.0  # seconds
HEADERS = {"authorization": f"Bearer {KEY}"}


@dataclass
class Drained:
    """complete: streams that came to their end; refused: later requests that got 503; stuck: servers that did
    not end by themselves; slowest_s: until one had ended."""

    complete: int = 0
    dropped: int = 0
    refused: int = 0
    answered: int = 0
    stuck: int = 0
    slowest_s: float = 0.0

    def __str__(self) -> str:
        late = f"refused_after_signal={self.refused} answered_after_signal={self.answered}"
        ends = f"complete={self.complete} dropped={self.dropped} stuck={self.stuck}"
        return f"{ends} {late} slowest_drain_s={self.slowest_s:.2f}"


def drain(folder: Path, streams: int, seed: int, total: Drained) -> None:
    """One server's end."""
    omni = descant.load(folder, latency=descant.Decoding(solver="euler", points=3, early=True))
    server = next(running := served(omni, ServerSettings(api_keys=(KEY,), model="tiny", vad="loudness")))
    begun = threading.Barrier(streams + 1)
    results: list[bool] = []

    def read(number: int) -> None:
        body = {**ASK, "seed": seed + number, "max_tokens": 60 + number}
        lines: list[str] = []
        try:
            url = f"{server.url}/v1/chat/completions"
            with httpx.stream("POST", url, json=body, headers=HEADERS, timeout=60) as told:
                for line in told.iter_lines():
                    if not lines:
                        begun.wait(60)
                    lines.append(line)
        except httpx.HTTPError:
            pass
        said = [line for line in lines if line]
        results.append(bool(said) and said[-1] == "data: [DONE]" and not any('"error"' in line for line in said))

    readers = [threading.Thread(target=read, args=(number,)) for number in range(streams)]
    for reader in readers:
        reader.start()
    begun.wait(60)
    begin = time.monotonic()
    server.server.handle_exit(signal.SIGTERM, None)
    late(server, total)
    for reader in readers:
        reader.join()
    while not server.server.should_exit and time.monotonic() < begin + ENDS_S:
        time.sleep(0.01)
    total.stuck += not server.server.should_exit
    running.close()
    total.slowest_s = max(total.slowest_s, time.monotonic() - begin)
    total.complete += sum(results)
    total.dropped += streams - sum(results)


def late(server: Running, total: Drained) -> None:
    """Ask after the signal: it is refused, or the server has ended already."""
    try:
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=ASK, headers=HEADERS, timeout=30)
    except httpx.HTTPError:
        return
    refused = answer.status_code == 503 and json.loads(answer.text)["error"]["code"] == "draining"
    total.refused += refused
    total.answered += not refused


def run(count: int, streams: int) -> Drained:
    """So many servers' ends."""
    total = Drained()
    with tempfile.TemporaryDirectory() as folder:
        model = tiny.write_descant(Path(folder) / "tiny")
        for number in range(count):
            drain(model, streams, 100 * number, total)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--streams", type=int, default=8)
    given = parser.parse_args()
    print(run(given.n, given.streams))


if __name__ == "__main__":
    main()
