"""The layer around Ray's proxies: wherever an application stops, the client is told, once, and in its own protocol."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from descant.scale.proxy import ProxyLayer, headers_for_proxy

START: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
SOUND: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"audio/mpeg")]}
REFUSED: Message = {"type": "websocket.http.response.start", "status": 401, "headers": []}


def body(text: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": text, "more_body": more}


def told(
    kind: str, messages: list[Message], received: Message | None = None, path: str = "/v1/realtime"
) -> list[Message]:
    """What a client gets of an application that sends these messages and stops."""
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        if received is not None:
            await receive()

    async def receive() -> Message:
        assert received is not None
        return received

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": kind, "path": path, "headers": [], "query_string": b""}
    asyncio.run(ProxyLayer(app)(scope, receive, send))
    return sent


STREAM = [START, body(b"data: 1\n\n", more=True), body(b"data: 2\n\n", more=True), body(b"", more=False)]


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_a_stream_of_events_that_stops_anywhere_ends_with_one_error(cut: int) -> None:
    sent = told("http", STREAM[:cut])
    assert sent[:cut] == STREAM[:cut] or cut == 0
    assert [m.get("more_body", False) for m in sent if m["type"] == "http.response.body"][-1] is False
    if cut == 0:
        assert sent[0]["status"] == 503
        assert dict(sent[0]["headers"])[b"retry-after"] == b"1"
        assert json.loads(sent[1]["body"])["error"]["code"] == "replica_lost"
    elif cut == len(STREAM):
        assert sent == STREAM
    else:
        (last,) = sent[cut:]
        assert json.loads(last["body"].removeprefix(b"data: "))["error"]["code"] == "replica_lost"
        assert b"[DONE]" not in last["body"]


def test_a_sound_that_stops_is_not_ended_as_if_it_were_whole() -> None:
    begun = [SOUND, body(b"abc", more=True)]
    assert told("http", begun) == begun  # uvicorn cuts a response that was not completed


@pytest.mark.parametrize("status", [404, 408, 429, 500, 503])
def test_refusals_of_rays_own_are_told_in_our_words(status: int) -> None:
    """They name deployments and nodes, and are no JSON."""
    own = {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]}
    start, told_body = told("http", [own, body(b"Deployment x on node y", more=True), body(b".", more=False)])
    assert start["status"] == 503 and dict(start["headers"])[b"retry-after"] == b"1"
    assert json.loads(told_body["body"])["error"]["code"] == "unavailable"
    ours = {**own, "headers": [(b"x-descant-replica", b"ab12")]}
    assert told("http", [ours, body(b"{}", more=False)]) == [ours, body(b"{}", more=False)]


def test_rays_own_paths_are_closed_but_for_its_health() -> None:
    for path, status in (("/-/routes", 404), ("/-/healthz", 200), ("/-/", 404), ("/v1/models", 200)):
        assert told("http", STREAM, path=path)[0]["status"] == status


OPEN: Message = {"type": "websocket.accept"}
SAID: Message = {"type": "websocket.send", "text": "{}"}
CLOSE: Message = {"type": "websocket.close", "code": 1000}


def test_a_socket_that_stops_gets_an_event_and_1012() -> None:
    for begun in ([OPEN], [OPEN, SAID]):
        *before, event, close = told("websocket", begun)
        assert before == begun
        assert json.loads(event["text"])["error"]["code"] == "replica_lost"
        assert json.loads(event["text"])["type"] == "error"
        assert (close["type"], close["code"]) == ("websocket.close", 1012)
    (close,) = told("websocket", [])  # not open yet: no event can be sent
    assert close["code"] == 1012


@pytest.mark.parametrize(
    "whole", [[OPEN, SAID, CLOSE], [REFUSED, {"type": "websocket.http.response.body", "body": b"{}"}]]
)
def test_a_socket_that_was_ended_is_left_alone(whole: list[Message]) -> None:
    assert told("websocket", whole) == whole


def test_a_client_that_left_is_told_nothing() -> None:
    assert told("websocket", [OPEN], {"type": "websocket.disconnect", "code": 1006}) == [OPEN]


def test_what_two_layers_say_alike_is_said_once() -> None:
    twice: dict[str, Any] = {**START, "headers": [(b"x-request-id", b"7"), (b"x-request-id", b"7"), (b"vary", b"a")]}
    assert told("http", [twice, body(b"", more=False)])[0]["headers"] == [(b"x-request-id", b"7"), (b"vary", b"a")]


def scope_of(path: str, query: bytes = b"", *headers: tuple[bytes, bytes]) -> Scope:
    return {"type": "http", "path": path, "query_string": query, "headers": list(headers)}


def test_the_name_of_a_call_decides_where_a_request_goes() -> None:
    own = (b"x-session-id", b"mine")
    for scope in (
        scope_of("/v1/realtime/calls/rtc_ab12_77/hangup", b"", own),
        scope_of("/v1/realtime/calls/rtc_ab12_77", b"", own, (b"X_Session_Id", b"other")),
        scope_of("/v1/realtime", b"model=nano&call_id=rtc_ab12_77", own),
    ):
        assert headers_for_proxy(scope) == [(b"x-session-id", b"rtc_ab12_77")]
    for scope in (
        scope_of("/v1/realtime/calls", b"", own),
        scope_of("/v1/realtime/calls/" + "a" * 81, b"", own),
        scope_of("/v1/realtime", b"call_id=../../x", own),
        scope_of("/v1/models", b"call_id=rtc_ab12_77", own),
    ):
        assert headers_for_proxy(scope) == [own]


def test_a_client_cannot_tell_a_proxy_what_to_do() -> None:
    names = (b"x-request-disconnect-disabled", b"X-Request-Timeout-Seconds", b"serve_multiplexed_model_id")
    scope = scope_of("/v1/models", b"", *((name, b"?1") for name in names), (b"accept", b"*/*"))
    assert headers_for_proxy(scope) == [(b"accept", b"*/*")]
