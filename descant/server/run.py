"""The server as a process: uvicorn, and an end that lets answers end."""

from __future__ import annotations

from types import FrameType

import uvicorn

from descant.server.app import make_app
from descant.server.gate import Gate
from descant.server.realtime import EVENT_BYTES
from descant.server.settings import ServerSettings

KEEP_ALIVE_S = 5  # seconds of an idle connection
HEADER_BYTES_MOST = 16 << 10
BACKLOG_CONNECTIONS = 256  # connections that wait to be taken


class Server(uvicorn.Server):
    """uvicorn, which refuses new answers from the first signal on. A second one ends it at once."""

    gate: Gate

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.gate.state.draining = True
        super().handle_exit(sig, frame)


def config_of(gate: Gate, settings: ServerSettings) -> uvicorn.Config:
    """uvicorn's configuration: its limits, and nothing written but what the gate logs."""
    return uvicorn.Config(
        gate,
        host=settings.host,
        port=settings.port,
        log_config=None,
        http="h11",  # of uvicorn's parsers the one that holds the limit of header bytes below
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=HEADER_BYTES_MOST,
        ws_max_size=EVENT_BYTES,
        backlog=BACKLOG_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(settings.drain_s) + 1,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )


def run_server(settings: ServerSettings) -> None:
    """Serve until a signal says to stop; then answers that have begun are ended, within ``settings.drain_s``."""
    gate = make_app(settings)
    server = Server(config_of(gate, settings))
    server.gate = gate
    server.run()
