"""How late the server's event loop is while a video of 30 s is read for somebody: ``python benchmarks/lag.py``

nano on this machine, in one process; a task of the loop itself looks every 2 ms how late it is woken, without a request
and with one. The video is 120 pictures of 128 x 96 and 30 s of sound, sent as a data URL.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from base64 import b64encode

import httpx
import numpy as np

import descant
from descant.server.app import make_app
from descant.server.media import SERVER_BUDGET
from descant.server.run import Server, config_of
from descant.server.settings import ServerSettings
from tests.inputs import media

EVERY_S = 0.002
QUIET_S = 3.0
TURNS = 5


def video() -> bytes:
    frames = media.grey_frames([2 * n for n in range(120)], 96, 128)
    return media.video_file(frames, 4, codec="libx264", sound=media.tone(30, 48000))


async def watch(late: list[float]) -> None:
    """Until it is cancelled."""
    while True:
        due = time.perf_counter() + EVERY_S
        await asyncio.sleep(EVERY_S)
        late.append(1000 * (time.perf_counter() - due))


def told(name: str, late: list[float]) -> None:
    values = np.array(late)
    p99 = np.percentile(values, 99)
    print(f"{name}: median {np.median(values):.1f} ms, p99 {p99:.1f} ms, worst {values.max():.1f} ms")


async def main() -> None:
    settings = ServerSettings()
    gate = make_app(settings, descant.load("nano", budget=SERVER_BUDGET))
    listening = socket.create_server(("127.0.0.1", 0))
    server = Server(config_of(gate, settings))
    server.gate = gate
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    url = "data:video/mp4;base64," + b64encode(video()).decode()
    body = json.dumps({"max_tokens": 1, "messages": [{"role": "user", "content": [
        {"type": "video_url", "video_url": {"url": url}}]}]}).encode()  # fmt: skip
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=120) as client:
        while (await client.get("/ready")).status_code != 200:
            await asyncio.sleep(0.1)
        quiet: list[float] = []
        busy: list[float] = []
        for late, act in ((quiet, lambda: asyncio.sleep(QUIET_S / TURNS)), (busy, lambda: post(client, body))):
            watching = asyncio.create_task(watch(late))
            for _ in range(TURNS):
                await act()
            watching.cancel()
    told("quiet", quiet)
    told("with a video of 30 s", busy)
    server.should_exit = True
    await serving


async def post(client: httpx.AsyncClient, body: bytes) -> None:
    answer = await client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200, answer.text


if __name__ == "__main__":
    asyncio.run(main())
