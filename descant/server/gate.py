"""The gate before all routes: who may come in, how much they may bring, and one id and one log line for each request.

It is an ASGI layer on the raw path, and refuses by default: only the paths in OPEN and the files of the page
need no key.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
import uuid
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from descant.errors import RequestError
from descant.omni import TENANT
from descant.server.errors import INTERNAL, response_of
from descant.server.flow import Metered, Paced, too_large
from descant.server.logs import REQUEST
from descant.server.settings import LOOPBACK_NAMES
from descant.server.shares import Shares, tenant_of
from descant.server.state import ServerState

log = logging.getLogger("descant.server")
KEY_PROTOCOL = "openai-insecure-api-key."  # a subprotocol that bears a key, as OpenAI's browser clients send it
OPEN = frozenset({"/", "/health", "/ready"})
TICKET_PATHS = frozenset({"/v1/realtime", "/v1/realtime/calls"})
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
SAFE_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)


CORS_HEADERS = (
    (b"access-control-allow-methods", b"GET, POST"),
    (b"access-control-allow-headers", b"authorization, content-type"),
    (b"access-control-expose-headers", b"x-request-id, retry-after"),
    (b"access-control-max-age", b"600"),
)
HEADERS_MOST = 100
HEADER_BYTES_MOST = 16 << 10


class Gate:
    """The ASGI layer around the application."""

    def __init__(self, app: ASGIApp, state: ServerState):
        self.app = app
        self.state = state
        self.settings = settings = state.settings
        self.shares = Shares(settings)
        names = {settings.host, *settings.allowed_hosts, *LOOPBACK_NAMES}
        self.hosts = {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self.meet(scope, receive, send)
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope["state"] = {**scope.get("state", {}), "request_id": request_id}
        REQUEST.set(request_id)
        begin = time.perf_counter()
        told = Told(send, request_id, self.cors_headers(headers))
        code = ""
        try:
            self.check(scope, headers)
            if is_preflight(scope, headers):
                await told.refuse_nothing(scope, receive)
            else:
                await self.answer(scope, receive, told)
        except RequestError as refusal:
            code = refusal.code
            await told.refuse(refusal, scope, receive)
        except TimeoutError:
            code = "deadline_exceeded"
            late = RequestError(504, code, "the request took longer than it may", "timeout_error")
            await told.refuse(late, scope, receive)
        except Exception:
            code = "internal"
            log.exception("request %s failed", request_id)
            await told.refuse(RequestError(500, "internal", INTERNAL, "server_error"), scope, receive)
        code = code or scope["state"].get("code", "")
        if code:
            self.state.figures.rejects.labels(code).inc()
        record = {"id": request_id, "method": scope["method"], "path": scope["path"][:80], "status": told.status}
        record |= {"ms": round(1000 * (time.perf_counter() - begin), 1)} | ({"code": code} if code else {})
        log.info("request", extra={"record": record})
        self.state.figures.requests.labels(route_of(scope), told.status).inc()

    @property
    def busy(self) -> bool:
        """True while anything is being answered, over HTTP or in a live session."""
        omni = self.state.loaded
        lent = None if omni is None else omni.engine.ledger()
        talks = lent is not None and lent.sessions + lent.waiting > 0
        return self.shares.open["request"].total() > 0 or talks

    async def answer(self, scope: Scope, receive: Receive, told: Told) -> None:
        """Have the application answer, within the share of its key and the time of a request."""
        if scope["method"] != "POST":
            await self.app(scope, receive, told)
            return
        with self.shares.taken("request", TENANT.get()):
            async with asyncio.timeout(self.settings.request_s):
                await self.app(scope, Metered(receive, self.settings), told)

    async def meet(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A WebSocket: refused by an HTTP status, before it is one."""
        headers = {name.lower(): value for name, value in scope["headers"]}
        named = [name for name in scope.get("subprotocols", ()) if name.startswith(KEY_PROTOCOL)]
        if named and b"authorization" not in headers:  # a browser cannot send the header
            headers[b"authorization"] = b"Bearer " + named[0].removeprefix(KEY_PROTOCOL).encode()
        REQUEST.set(uuid.uuid4().hex)
        begin = time.perf_counter()
        status, code = 101, ""
        try:
            self.check(scope, headers)
            with self.shares.taken("socket", TENANT.get()):
                await self.app(scope, Paced(receive, send), send)
        except RequestError as refusal:
            status, code = refusal.status, refusal.code
            self.state.figures.rejects.labels(code).inc()
            await receive()  # the client's wish to connect
            await response_of(refusal)(scope, receive, send)
        record = {"id": REQUEST.get(), "method": "SOCKET", "path": scope["path"][:80], "status": status}
        record |= {"ms": round(1000 * (time.perf_counter() - begin), 1)} | ({"code": code} if code else {})
        log.info("socket", extra={"record": record})

    def check(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Refuse a request by its first lines, and remember whose it is. Raises RequestError."""
        size = len(scope["raw_path"]) + len(scope["query_string"]) + sum(len(n) + len(v) for n, v in scope["headers"])
        if len(scope["headers"]) > HEADERS_MOST or size > HEADER_BYTES_MOST:
            most = f"{HEADERS_MOST} headers of {HEADER_BYTES_MOST:,} bytes"
            raise RequestError(431, "headers_too_large", f"at most {most} are read")
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if not is_name(host) or without_port(host) not in self.hosts:
            raise RequestError(
                403, "host_not_allowed", "this server is not called so; see allowed_hosts", "permission_error"
            )
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and origin not in self.settings.allowed_origins and urlsplit(origin).netloc.lower() != host:
            raise RequestError(403, "origin_not_allowed", "pages of this origin may not ask here", "permission_error")
        if is_preflight(scope, headers):  # it bears no key, and is told nothing but whether it may ask
            return
        given = headers.get(b"authorization", b"")
        twice = sum(name.lower() == b"authorization" for name, _ in scope["headers"]) > 1
        ticket = not twice and self.has_ticket(scope, given)
        if not (ticket or self.is_open(scope) or (is_key(given, self.settings.api_keys) and not twice)):
            raise RequestError(
                401,
                "invalid_api_key",
                "give a key of this server: Authorization: Bearer KEY",
                "authentication_error",
                headers={"www-authenticate": "Bearer"},
            )
        TENANT.set(tenant_of(given.partition(b" ")[2].strip()) if self.settings.api_keys else "")
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise RequestError(415, "unsupported_content_encoding", "send the body as it is, without Content-Encoding")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.settings.body_bytes:
            raise too_large(self.settings.body_bytes)

    def has_ticket(self, scope: Scope, header: bytes) -> bool:
        """True for a realtime talk that comes with a ticket, which is used by that."""
        if scope["path"] not in TICKET_PATHS:
            return False
        session = self.state.tickets.use(header.partition(b" ")[2].strip().decode("latin-1"))
        scope["state"] = {**scope.get("state", {}), "ticket": session}
        return session is not None

    def is_open(self, scope: Scope) -> bool:
        """True for what needs no key."""
        path = scope["path"]
        return path in OPEN or (scope["type"] == "http" and path in self.state.page)

    def cors_headers(self, headers: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        """The headers that let a browser give an answer to a page of an allowed origin: that origin, never "*"."""
        origin = headers.get(b"origin", b"")
        if origin.decode("latin-1") not in self.settings.allowed_origins:
            return []
        return [(b"access-control-allow-origin", origin), (b"vary", b"Origin"), *CORS_HEADERS]


class Told:
    """A response so far; every one bears the request's id."""

    def __init__(self, send: Send, request_id: str, more: list[tuple[bytes, bytes]]):
        self.send = send
        self.own = [(b"x-request-id", request_id.encode()), *SAFE_HEADERS, *more]
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message["headers"], *self.own]}
        await self.send(message)

    async def refuse(self, refusal: RequestError, scope: Scope, receive: Receive) -> None:
        """Send a refusal, unless a response has begun: then it can only be cut."""
        if not self.status:
            await response_of(refusal)(scope, receive, self)
        elif refusal.code == "deadline_exceeded":
            raise refusal  # uvicorn cuts the connection

    async def refuse_nothing(self, scope: Scope, receive: Receive) -> None:
        """The answer to a preflight."""
        await Response(status_code=204)(scope, receive, self)


def route_of(scope: Scope) -> str:
    """The route of a request as it is written in the program, so that no client can make up new ones."""
    route = scope.get("route")
    return "other" if route is None else str(route.path)


def is_preflight(scope: Scope, headers: Mapping[bytes, bytes]) -> bool:
    """True for a browser's question whether a page of another origin may ask."""
    asks = b"origin" in headers and b"access-control-request-method" in headers
    return scope["type"] == "http" and scope["method"] == "OPTIONS" and asks


def is_name(host: str) -> bool:
    """True for a host header that is a name and perhaps a port, and nothing else."""
    return re.fullmatch(r"(?:\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::\d{1,5})?", host) is not None


def without_port(host: str) -> str:
    return re.sub(r":\d{1,5}$", "", host)


def is_key(header: bytes, keys: Iterable[str]) -> bool:
    """True if a request may come in: with a key of the server, or where it has none."""
    keys = tuple(keys)
    if not keys:
        return True
    scheme, _, given = header.partition(b" ")
    found = [hmac.compare_digest(given.strip(), key.encode()) for key in keys]  # all of them: no time tells which
    return scheme.lower() == b"bearer" and any(found)
