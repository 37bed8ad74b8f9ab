"""Many who are silent, some who speak: ``python -m tests.chaos.sockets --idle 200 --active 16 --seconds 300``.

A server of nano (a process of its own) has so many idle realtime sockets, and so many that type a question, hear the
answer and ask again. Prints the turns, the errors, what an idle socket costs and how the process grows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
from websockets.asyncio.client import ClientConnection, connect

PAGE_KIB = os.sysconf("SC_PAGE_SIZE") / 1024
WARM_SHARE = 0.3  # of the run, in which caches fill


def resident(pid: int) -> float:
    """KiB of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_KIB


async def opened(url: str) -> ClientConnection:
    line = await connect(f"ws{url.removeprefix('http')}/v1/realtime", max_size=None, compression=None, open_timeout=60)
    await line.recv()
    return line


async def speak(line: ClientConnection, until: float, counts: dict[str, int]) -> None:
    """Ask, hear, and ask again."""
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "What is seven plus five?"}]}
    while time.monotonic() < until:
        await line.send(json.dumps({"type": "conversation.item.create", "item": item}))
        await line.send(json.dumps({"type": "response.create"}))
        async for text in line:
            event = json.loads(text)
            if event["type"] == "error":
                counts["errors"] += 1
                break
            if event["type"] == "response.done":
                counts["turns" if event["response"]["status"] in ("completed", "incomplete") else "failed"] += 1
                break
        await asyncio.sleep(0.2)


async def keep(line: ClientConnection, counts: dict[str, int]) -> None:
    """An idle socket: its pings are answered, and nothing else comes."""
    async for _ in line:
        counts["unasked"] += 1


async def load(url: str, pid: int, given: argparse.Namespace) -> str:
    counts = {"turns": 0, "errors": 0, "failed": 0, "unasked": 0, "lost": 0}
    before = resident(pid)
    idle = [await opened(url) for _ in range(given.idle)]
    each = (resident(pid) - before) / max(1, given.idle)
    keepers = [asyncio.create_task(keep(line, counts)) for line in idle]
    until = time.monotonic() + given.seconds
    lines = [await opened(url) for _ in range(given.active)]
    speakers = [asyncio.create_task(speak(line, until, counts)) for line in lines]
    grown: list[tuple[float, float]] = []
    while time.monotonic() < until:
        await asyncio.sleep(1)
        grown.append((time.monotonic(), resident(pid)))
    for outcome in await asyncio.gather(*speakers, return_exceptions=True):
        counts["lost"] += isinstance(outcome, BaseException)
    counts["lost"] += sum(task.done() for task in keepers)
    for task in keepers:
        task.cancel()
    for line in (*idle, *lines):
        await line.close()
    late = grown[int(len(grown) * WARM_SHARE) :]
    slope = 60 * float(np.polyfit(*zip(*late, strict=True), 1)[0]) if len(late) > 1 else 0.0
    told = " ".join(f"{name}={count}" for name, count in counts.items())
    return f"{told}\nidle_socket_kib={each:.1f} memory_slope_kib_per_minute={slope:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--idle", type=int, default=200)
    parser.add_argument("--active", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--model", default="nano")
    given = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "descant", "serve", "--model", given.model, "--port", str(port)]
    environment = {**os.environ, "DESCANT_IDLE_S": "3600", "DESCANT_REQUESTS_PER_KEY": "1000"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            end = time.monotonic() + 120
            while time.monotonic() < end:
                try:
                    if httpx.get(f"{url}/ready").status_code == 200:
                        break
                except httpx.HTTPError:
                    pass
                time.sleep(0.2)
            print(asyncio.run(load(url, process.pid, given)))
        finally:
            process.kill()


if __name__ == "__main__":
    main()
