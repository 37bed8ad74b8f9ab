"""The routes of realtime talks: sockets, calls over WebRTC, and tickets to both."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request
from pydantic import Field
from starlette.datastructures import UploadFile
from starlette.responses import JSONResponse, Response
from starlette.types import Scope
from starlette.websockets import WebSocket

from descant.errors import RequestError
from descant.server.dialects import DIALECTS, Dialect
from descant.server.errors import wrong
from descant.server.realtime import RealtimeTalk
from descant.server.realtime_channel import SocketChannel
from descant.server.realtime_session import RealtimeSession, SessionPart, new_id
from descant.server.schema import checked
from descant.server.state import ServerState

SDP_BYTES = 64 << 10
MOST_CALLS = 64  # at once
AnswerCall = Callable[[ServerState, str, RealtimeSession], Awaitable[tuple[str, str]]]
TICKET_S = 60  # seconds that a ticket is good, where it does not say


class ExpiresAfter(SessionPart):
    anchor: Literal["created_at"] = "created_at"
    seconds: Annotated[int, Field(ge=10, le=7200)] = TICKET_S


class TicketWish(SessionPart):
    """The body of POST /v1/realtime/client_secrets."""

    expires_after: ExpiresAfter = ExpiresAfter()
    session: dict[str, Any] = Field(default_factory=dict)


def add_realtime_routes(app: FastAPI, state: ServerState) -> None:
    """All routes below /v1/realtime, and DashScope's own path."""
    add_socket_routes(app, state)
    add_call_routes(app, state)

    @app.post("/v1/realtime/client_secrets")
    async def client_secrets(request: Request) -> Response:
        wish = checked(TicketWish, await json_of(request), "body")
        session = RealtimeSession().updated(wish.session)
        seconds = wish.expires_after.seconds
        value = state.tickets.sell(session, seconds)
        expires_at = int(time.time()) + seconds
        record = session.record(new_id("sess"), state.settings.model, expires_at)
        return JSONResponse({"value": value, "expires_at": expires_at, "session": record})


def add_socket_routes(app: FastAPI, state: ServerState) -> None:
    """Talks over WebSockets."""

    @app.websocket("/api-ws/v1/realtime")  # DashScope's client appends ?model= to whatever it is given
    async def dashscope(socket: WebSocket) -> None:
        await talk(socket, DIALECTS["dashscope"])

    @app.websocket("/v1/realtime")
    async def realtime(socket: WebSocket) -> None:
        await talk(socket, DIALECTS.get(socket.query_params.get("dialect", "openai"), DIALECTS["openai"]))

    async def talk(socket: WebSocket, dialect: Dialect) -> None:
        offered = socket.scope.get("subprotocols", ())
        await socket.accept("realtime" if "realtime" in offered else None)
        if state.loaded is None or state.draining:
            await socket.close(1013 if not state.draining else 1001)
            return
        session = session_of_ticket(socket.scope)
        if session is None and socket.query_params.get("intent") == "transcription":
            session = RealtimeSession(type="transcription")
        await RealtimeTalk(SocketChannel(socket), state, dialect, session).run()


def add_call_routes(app: FastAPI, state: ServerState) -> None:
    """Talks over WebRTC."""

    @app.post("/v1/realtime/calls")
    async def call(request: Request) -> Response:
        answer_call = await asyncio.to_thread(calls_here)  # the first time it imports a lot
        offer, wish = await offer_of(request)
        session = (session_of_ticket(request.scope) or RealtimeSession()).updated(wish)
        if len(state.calls) >= MOST_CALLS:
            raise RequestError(429, "too_many_calls", f"{MOST_CALLS} calls are being held", "rate_limit_error")
        assert state.omni is not None  # or the refusal says why not
        name, answer = await answer_call(state, offer, session)
        headers = {"location": f"/v1/realtime/calls/{name}"}
        return Response(answer, 201, headers, media_type="application/sdp")

    @app.post("/v1/realtime/calls/{name}/hangup")
    async def hangup(name: str) -> Response:
        if name not in state.calls:
            raise RequestError(404, "call_not_found", "there is no call of this id", "not_found_error")
        state.calls[name].cancel()
        return Response(status_code=200)


def calls_here() -> AnswerCall:
    """The function that takes calls. Raises RequestError where the extra is not installed."""
    try:
        from descant.server.webrtc import answer_call
    except ImportError:
        message = "this server takes no calls over WebRTC; install it with descant[webrtc], or use /v1/realtime"
        raise RequestError(501, "not_implemented", message) from None
    return answer_call


async def offer_of(request: Request) -> tuple[str, dict[str, Any]]:
    """The SDP of an offer, and the session that came with it: the body, or a form of both. Raises RequestError."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    session: object = {}
    if kind == "application/sdp":
        offer: object = (await request.body()).decode("utf-8", "replace")
    elif kind == "multipart/form-data":
        async with request.form(max_files=2, max_fields=8) as form:
            offer, given = [await text_of(form.get(name)) for name in ("sdp", "session")]
        try:
            session = json.loads(given or "{}")
        except (ValueError, RecursionError):
            session = None
    else:
        raise RequestError(415, "unsupported_content_type", "send application/sdp, or a form of sdp and session")
    if not isinstance(offer, str) or not 0 < len(offer) <= SDP_BYTES:
        raise wrong(f"sdp is an offer of at most {SDP_BYTES:,} bytes", "sdp")
    if not isinstance(session, dict):
        raise wrong("session is a JSON object", "session")
    return offer, session


async def text_of(field: UploadFile | str | None) -> str | None:
    """A field of a form, which clients send as text or as a file."""
    return (await field.read()).decode("utf-8", "replace") if isinstance(field, UploadFile) else field


async def json_of(request: Request) -> Any:
    """The JSON body of a request; an empty one is an empty object. Raises RequestError."""
    try:
        return json.loads(await request.body() or b"{}")
    except (ValueError, RecursionError):
        raise RequestError(400, "invalid_json", "the body is not JSON") from None


def session_of_ticket(scope: Scope) -> RealtimeSession | None:
    """The session that the request's ticket was bought for; None: it came with a key."""
    session: RealtimeSession | None = scope.get("state", {}).get("ticket")
    return session
