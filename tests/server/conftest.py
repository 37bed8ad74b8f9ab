"""A server of a tiny model of random weights, on a port of this machine."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import pytest

import descant
from descant.engine.sampling import reciting
from descant.engine.stages import Stages
from descant.server.app import make_app
from descant.server.run import Server, config_of
from descant.server.settings import ServerSettings
from tests import tiny

Script = Callable[..., None]
OTHER_KEY = "fedcba9876543210fedcba9876543210"
KEY = "0123456789abcdef0123456789abcdef"


@dataclass
class Running:
    """A server that serves. omni: its model, on which tests look at the ledger."""

    url: str
    omni: descant.Omni
    server: Server

    def client(self, **headers: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {KEY}", **headers}, timeout=60)

    def idle(self, patience_s: float = 10.0) -> bool:
        """True once nothing is lent out any more."""
        end = time.monotonic() + patience_s
        while not self.omni.engine.ledger().idle:
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        return True


def run(omni: descant.Omni, settings: ServerSettings) -> Iterator[Running]:
    gate = make_app(settings, omni)
    listening = socket.create_server(("127.0.0.1", 0))
    server = Server(config_of(gate, settings))
    server.gate = gate
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    while httpx.get(f"{url}/ready").status_code != 200 if server.started else True:
        time.sleep(0.02)
    try:
        yield Running(url, omni, server)
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """With a key. What no request gives a seed for has always the same one."""
    folder = tiny.write_descant(tmp_path_factory.mktemp("model") / "tiny")
    omni = descant.load(folder, latency=descant.Decoding(solver="euler", points=3, early=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("descant.omni.secrets.randbelow", lambda most: 1)
        yield from run(
            omni, ServerSettings(api_keys=(KEY, OTHER_KEY), model="tiny", body_bytes=1 << 20, vad="loudness")
        )


@pytest.fixture
def script(server: Running, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Says what the model writes in all answers from now on: texts, and special tokens by their names."""
    tokenizer = server.omni.models.tokenizer

    def write(*pieces: str) -> None:
        ids = [i for p in pieces for i in ([tiny.ID[p]] if p in tiny.ID else tokenizer.encode(p))]
        stop = min(server.omni.models.stop_ids)
        monkeypatch.setattr(Stages, "text_sampler", lambda *_: reciting((*ids, stop)))

    return write


@pytest.fixture
def client(server: Running) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client
    assert server.idle(), server.omni.engine.ledger()
