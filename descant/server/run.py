"""The server as a process: uvicorn, and an end that lets answers end."""

from __future__ import annotations

import time
from types import FrameType

import uvicorn

from descant.server.app import make_app
from descant.server.gate import HEADER_BYTES_MOST, Gate
from descant.server.protocol import WireLimits, protocols
from descant.server.realtime import EVENT_BYTES
from descant.server.settings import ServerSettings

KEEP_ALIVE_S = 5  # seconds of an idle connection
PING_EVERY_S = 20  # seconds: of a socket; then PONG_S until it is gone
PONG_S = 60  # seconds
BACKLOG_CONNECTIONS = 256  # connections that wait to be taken


class Server(uvicorn.Server):
    """uvicorn, with an end that lets answers end: from the first signal on nothing new is begun (503, /ready too), and
    once nothing is being answered, or ``drain_s`` have passed, it ends. A second signal ends it at once."""

    gate: Gate
    _drain_until: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        state = self.gate.state
        if state.draining:
            self.should_exit = True
            self.force_exit = True
        else:
            state.draining = True
            self._drain_until = time.monotonic() + state.settings.drain_s

    async def on_tick(self, counter: int) -> bool:
        if self._drain_until is not None:
            over = time.monotonic() > self._drain_until
            self.should_exit = self.should_exit or over or not self.gate.busy
        return await super().on_tick(counter)


def config_of(gate: Gate, settings: ServerSettings) -> uvicorn.Config:
    """uvicorn's configuration: its limits, and nothing written but what the gate logs."""
    wire = WireLimits(settings.connections, settings.head_s, settings.slow_reader_s)
    http, socket = protocols(wire)
    return uvicorn.Config(
        gate,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=HEADER_BYTES_MOST,
        ws_max_size=EVENT_BYTES,
        backlog=BACKLOG_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(settings.drain_s) + 1,
        http=http,
        ws=socket,
        ws_per_message_deflate=False,
        ws_ping_interval=PING_EVERY_S,
        ws_ping_timeout=PONG_S,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )


def run_server(settings: ServerSettings) -> None:
    """Serve until a signal says to stop; then answers that have begun are ended, within ``settings.drain_s``."""
    gate = make_app(settings)
    server = Server(config_of(gate, settings))
    server.gate = gate
    server.run()
