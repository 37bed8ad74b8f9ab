"""uvicorn's protocols with what they leave open: clients that send their first lines slowly, read slowly, or go on
sending what was refused, and connections without number.

    a head           -> within ``head_s`` of its first byte, or of the connection
    a refused body   -> read and dropped for LINGER_S, so that the refusal arrives; then the connection is cut
    a slow reader    -> the writer waits (and with it the answer); cut when it takes less than SLOW_BYTES in ``stall_s``

The limits come with the class (``protocols``), as uvicorn makes the instances.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from typing import Protocol

import h11
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from descant.errors import RequestError
from descant.server.errors import body_of_error

LINGER_S = 2.0  # seconds
SLOW_BYTES = 16 << 10  # of a reader, in ``stall_s``


@dataclass(frozen=True)
class WireLimits:
    """connections: at once. head_s: for the first lines of a request. stall_s: without progress of a reader."""

    connections: int = 2048
    head_s: float = 10.0
    stall_s: float = 30.0


class WriteBuffer(Protocol):
    """The part of a transport that a slow reader is seen by."""

    def get_write_buffer_size(self) -> int: ...
    def abort(self) -> None: ...


class ReaderWatch:
    """Cuts a connection whose reader stands still, while there is something to be read."""

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: WriteBuffer, stall_s: float):
        self.loop, self.transport, self.stall_s = loop, transport, stall_s
        self._timer: asyncio.TimerHandle | None = None
        self._before = 0

    def begin(self) -> None:
        """The buffer is full: look again in a while."""
        self._before = self.transport.get_write_buffer_size()
        self._timer = self.loop.call_later(self.stall_s, self._look)

    def end(self) -> None:
        """The buffer has room again, or the connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        if self._before - self.transport.get_write_buffer_size() < SLOW_BYTES:
            self.transport.abort()
        else:
            self.begin()


class WatchesReader(asyncio.Protocol):
    """Watches who reads slowly, in both protocols; it comes before uvicorn's own in the order of classes."""

    watch: ReaderWatch

    def pause_writing(self) -> None:
        super().pause_writing()
        self.watch.begin()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.watch.end()

    def connection_lost(self, exc: Exception | None) -> None:
        self.watch.end()
        super().connection_lost(exc)


class GuardedHttp(WatchesReader, H11Protocol):
    """HTTP/1.1."""

    wire = WireLimits()
    _head_timer: asyncio.TimerHandle | None = None
    _linger_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.watch = ReaderWatch(self.loop, transport, self.wire.stall_s)
        if len(self.connections) > self.wire.connections:
            transport.abort()
        else:
            self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._end_timers(linger=self.conn.their_state is not h11.SEND_BODY)
        elif self._head_timer is None and self.conn.trailing_data[0]:
            self._await_head()

    def on_response_complete(self) -> None:
        unread = self.conn.their_state is h11.SEND_BODY
        super().on_response_complete()
        if unread and not self.transport.is_closing():
            self._linger_timer = self.loop.call_later(LINGER_S, self.transport.abort)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._end_timers()
        super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        """The body of an error, for what is no HTTP: msg is fixed text of uvicorn's, and not told."""
        fault = sys.exc_info()[1]  # uvicorn calls this where it has caught it
        if isinstance(fault, h11.RemoteProtocolError) and fault.error_status_hint == 431:
            refusal = RequestError(431, "headers_too_large", "the request's first lines are too long")
        else:
            refusal = RequestError(400, "invalid_http", "this is no HTTP/1.1 request")
        self._end_timers()
        self._say(refusal)

    def _say(self, refusal: RequestError) -> None:
        """Answer outside of any application, and close. Nothing, if an answer has begun."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps(body_of_error(refusal)).encode()
            headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
            answer = h11.Response(status_code=refusal.status, headers=[*headers, ("connection", "close")])
            for part in (answer, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(part) or b"")
        self.transport.close()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.wire.head_s, self._head_is_late)

    def _head_is_late(self) -> None:
        self._say(RequestError(408, "request_timeout", "the request's first lines came too slowly"))

    def _end_timers(self, *, linger: bool = True) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        if linger and self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_timers()
        super().connection_lost(exc)


class GuardedSocket(WatchesReader, WebSocketsSansIOProtocol):
    """WebSocket."""

    wire = WireLimits()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.watch = ReaderWatch(self.loop, self.transport, self.wire.stall_s)

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body":  # a refusal is complete, which uvicorn does not note
            self.handshake_complete = True


def protocols(limits: WireLimits) -> tuple[type[GuardedHttp], type[GuardedSocket]]:
    """The protocols for one server."""
    http = type("Http", (GuardedHttp,), {"wire": limits})
    socket = type("Socket", (GuardedSocket,), {"wire": limits})
    return http, socket
