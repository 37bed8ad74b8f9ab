"""Two replicas of nano under Ray Serve on this machine, and clients of them."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import ray
import websockets
from ray import serve

from descant.scale.deployment import deployment_of
from descant.server.settings import read_settings

KEY = "0123456789abcdef0123456789abcdef"
OTHER_KEY = "fedcba9876543210fedcba9876543210"
ENVIRONMENT = {
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "descant.scale.proxy:layers",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",  # on loopback; docs/scaling.md says how it is for others
    "DESCANT_API_KEYS": json.dumps([KEY, OTHER_KEY]),
}
QUESTION = {"role": "user", "content": "What is seven plus five?"}
SPOKEN = {"modalities": ["text", "audio"], "audio": {"voice": "default", "format": "pcm16"}}
REPLICAS = 2


@dataclass
class Heard:
    """How one exchange went. replica: who served it; end: the last event, or the error of the transport."""

    replica: str
    end: str
    at: float = field(default_factory=time.monotonic)


@dataclass
class Cluster:
    """The application at an address of this machine."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def deploy(self, idle_s: float) -> None:
        """Put this version of the settings in place of the one before; returns when it is there."""
        settings = read_settings(None, {"model": "nano", "idle_s": idle_s, "session_s": 600.0, "drain_s": 5.0})
        deployment = deployment_of(settings).options(num_replicas=REPLICAS, max_surge_percent=100)
        serve.run(deployment.bind(settings), name="descant", route_prefix="/")

    def client(self, session: str = "", key: str = KEY) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {key}"} | ({"x-session-id": session} if session else {})
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30)

    async def ask(self, session: str = "", **body: Any) -> httpx.Response:
        """One answer that is not streamed."""
        async with self.client(session) as client:
            return await client.post("/v1/chat/completions", json={"messages": [QUESTION], "seed": 1} | body)

    async def stream(self, session: str = "") -> Heard:
        """One spoken answer to its end, whatever that is."""
        body = {"messages": [QUESTION], "seed": 1, "stream": True, **SPOKEN}
        replica = last = ""
        async with self.client(session) as client:
            try:
                async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                    replica = answer.headers.get("x-descant-replica", "")
                    async for line in answer.aiter_lines():
                        last = line or last
            except httpx.HTTPError as error:
                last = repr(error)
        return Heard(replica, last)

    @asynccontextmanager
    async def socket(self) -> AsyncIterator[websockets.ClientConnection]:
        headers = {"authorization": f"Bearer {KEY}"}
        url = f"ws://127.0.0.1:{self.port}/v1/realtime?model=nano"
        async with websockets.connect(url, additional_headers=headers) as connection:
            assert json.loads(await connection.recv())["type"] == "session.created"
            yield connection

    async def replicas(self) -> dict[str, httpx.Response]:
        """The metrics of each replica that takes requests, by its name."""
        found: dict[str, httpx.Response] = {}
        for n in range(16):
            async with self.client(f"look {n}") as client:
                answer = await client.get("/metrics")
            found[answer.headers["x-descant-replica"]] = answer
        return found


async def talk(connection: websockets.ClientConnection) -> list[str]:
    """One typed turn of a realtime session; the types of the events of its answer."""
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": QUESTION["content"]}]}
    await connection.send(json.dumps({"type": "conversation.item.create", "item": item}))
    await connection.send(json.dumps({"type": "response.create"}))
    types: list[str] = []
    while "response.done" not in types and "error" not in types:
        types.append(json.loads(await connection.recv())["type"])
    return types


def replica_pids() -> list[int]:
    """The processes of our replicas: children of the raylet, which is a child of ours."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            is_replica = (path / "cmdline").read_bytes().startswith(b"ray::ServeReplica:descant")
            if is_replica and parent_of(parent_of(int(path.name))) == os.getpid():
                found.append(int(path.name))
    return found


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@contextmanager
def started() -> Iterator[Cluster]:
    """Ray and the application, until the block is left."""
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    with socket.create_server(("127.0.0.1", 0)) as free:
        cluster = Cluster(free.getsockname()[1])
    try:
        ray.init(
            address="local", num_cpus=8, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False,
            logging_level="ERROR", _node_ip_address="127.0.0.1",
        )  # fmt: skip
        serve.start(http_options={"host": "127.0.0.1", "port": cluster.port})
        cluster.deploy(idle_s=300.0)
        yield cluster
    finally:
        serve.shutdown()
        ray.shutdown()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
