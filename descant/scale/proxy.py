"""A layer of ASGI around each of Ray's HTTP proxies: no stream ends in silence, and calls find their replica.

A proxy by itself only stops in the middle when a replica is gone. The environment of every Ray node names this
layer: ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=descant.scale.proxy:layers``.
"""

from __future__ import annotations

import json
import re
import secrets

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from descant.errors import RequestError
from descant.server.errors import body_of_error, response_of
from descant.server.sse import sse

CLOSE_RESTARTED = 1012  # the WebSocket's code for: come again at once
GONE = RequestError(
    503, "replica_lost", "the server that answered here is gone; ask again, from the beginning", "server_error",
    headers={"retry-after": "1"},
)  # fmt: skip
UNAVAILABLE = RequestError(
    503, "unavailable", "no replica can take this now; ask again a little later", "overloaded_error",
    headers={"retry-after": "1"},
)  # fmt: skip
NOT_FOUND = RequestError(404, "not_found", "there is nothing here")
OPEN_TO_BALANCERS = "/-/healthz"  # of Ray's own paths
REPLICA_HEADER = b"x-descant-replica"  # in every response of a replica: what comes without it is the proxy's own
SESSION_HEADER = b"x-session-id"  # requests that bear the same one go to the same replica
CALL_PATH = re.compile(r"/v1/realtime/calls/([A-Za-z0-9_-]{1,80})(?:/.*)?")
CALL_QUERY = re.compile(rb"(?:^|&)call_id=([A-Za-z0-9_-]{1,80})(?:&|$)")
# by these a client could change what a proxy does: keep an answer going when it leaves, choose models, set deadlines
NOT_FOR_CLIENTS = (b"x-request-disconnect-disabled", b"x-request-timeout-seconds", b"serve-multiplexed-model-id")


def layers() -> list[Middleware]:
    """Return what Ray Serve puts around each of its proxies."""
    return [Middleware(ProxyLayer)]


class ProxyLayer:
    """The ASGI layer."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        if scope["path"].startswith("/-/") and scope["path"] != OPEN_TO_BALANCERS:
            await response_of(NOT_FOUND)(scope, receive, send)
            return
        scope["headers"] = headers_for_proxy(scope)
        exchange = (HttpExchange if scope["type"] == "http" else SocketExchange)(receive, send)
        await self.app(scope, exchange.receive, exchange.send)
        await exchange.end(scope)


def headers_for_proxy(scope: Scope) -> list[tuple[bytes, bytes]]:
    """The headers of a request, without those that are not for clients, and with the name of the call that it is of."""
    call = named_call(scope)
    dropped = NOT_FOR_CLIENTS if call is None else (*NOT_FOR_CLIENTS, SESSION_HEADER)
    kept = [(name, value) for name, value in scope["headers"] if name.lower().replace(b"_", b"-") not in dropped]
    return kept if call is None else [*kept, (SESSION_HEADER, call)]


def named_call(scope: Scope) -> bytes | None:
    """The name of the WebRTC call that a request is about."""
    if (call := CALL_PATH.fullmatch(scope["path"])) is not None:
        return call.group(1).encode()
    queried = CALL_QUERY.search(scope.get("query_string", b"")) if scope["path"] == "/v1/realtime" else None
    return None if queried is None else queried.group(1)


class HttpExchange:
    """A response so far. is_foreign: it is a refusal of Ray's own, which is told in our words instead."""

    def __init__(self, receive: Receive, send: Send):
        self.receive, self._send = receive, send
        self.is_begun = self.is_complete = self.is_event_stream = self.is_foreign = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = dict(message["headers"])
            self.is_foreign = message["status"] >= 400 and REPLICA_HEADER not in headers
        if self.is_foreign:
            return
        if message["type"] == "http.response.start":
            self.is_begun = True
            self.is_event_stream = headers.get(b"content-type", b"").startswith(b"text/event-stream")
            message = {**message, "headers": list(dict.fromkeys(message["headers"]))}  # the id is told by two layers
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self.is_complete = True
        await self._send(message)

    async def end(self, scope: Scope) -> None:
        """Tell a client whose replica is gone: by a status, by a last event, or by a connection that is cut."""
        if self.is_complete:
            return
        if not self.is_begun:
            await response_of(UNAVAILABLE if self.is_foreign else GONE)(scope, self.receive, self._send)
        elif self.is_event_stream:
            await self._send({"type": "http.response.body", "body": sse(body_of_error(GONE)), "more_body": False})
        # else it is bytes of a sound: uvicorn cuts the connection before the end that was promised


class SocketExchange:
    """A WebSocket so far."""

    def __init__(self, receive: Receive, send: Send):
        self._receive, self._send = receive, send
        self.is_open = self.is_ended = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self.is_ended = True
        return message

    async def send(self, message: Message) -> None:
        match message["type"]:
            case "websocket.accept":
                self.is_open = True
            case "websocket.close":
                self.is_ended = True
            case "websocket.http.response.body":
                self.is_ended = not message.get("more_body", False)
        await self._send(message)

    async def end(self, scope: Scope) -> None:
        """Tell a client whose replica is gone: by an event, and a code that means: come again at once."""
        if self.is_ended:
            return
        if self.is_open:
            event = {"type": "error", "event_id": f"event_{secrets.token_hex(10)}", **body_of_error(GONE)}
            await self._send({"type": "websocket.send", "text": json.dumps(event)})
        await self._send({"type": "websocket.close", "code": CLOSE_RESTARTED, "reason": GONE.code})
