"""What clients do to a connection: they send slowly, read slowly, send too much, and come in numbers."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import descant
from descant.errors import RequestError
from descant.omni import TENANT
from descant.server import flow, protocol
from descant.server.media import SERVER_BUDGET
from descant.server.settings import ServerSettings
from descant.server.shares import Shares, tenant_of
from descant.server.state import SpokenAnswers
from tests import tiny
from tests.server.conftest import KEY, Running, run

OTHER_KEY = "fedcba9876543210fedcba9876543210"
CHAT = "/v1/chat/completions"
ASK = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "seed": 1, "max_tokens": 4}
ORIGIN = "https://page.example"


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with short limits and two keys."""
    folder = tiny.write_descant(tmp_path_factory.mktemp("model") / "tiny")
    omni = descant.load(folder, latency=descant.Decoding(solver="euler", points=3, early=True), budget=SERVER_BUDGET)
    settings = ServerSettings(
        api_keys=(KEY, OTHER_KEY), model="tiny", body_bytes=1 << 20, head_s=0.4, stall_s=0.4, body_s=1.0,
        slow_reader_s=0.4, requests_per_key=2, sockets_per_key=2, allowed_origins=(ORIGIN,),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "LINGER_S", 0.4)
        yield from run(omni, settings)


@pytest.fixture
def plug(hasty: Running) -> Iterator[socket.socket]:
    with connected(hasty) as made:
        yield made
    assert hasty.idle()


def connected(server: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])), timeout=20)


def head(*more: str, path: str = CHAT, key: str = KEY) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: localhost", f"authorization: Bearer {key}", *more]
    return "\r\n".join([*lines, "content-type: application/json", "", ""]).encode()


def rest_of(plug: socket.socket) -> bytes:
    """All that comes until the server closes."""
    parts = []
    try:
        while part := plug.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def code_of(answer: bytes) -> tuple[int, str]:
    status = int(answer.split(b" ", 2)[1])
    return status, json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"]


# ---------------------------------------------------------------- what comes in


@pytest.mark.parametrize("sent", [b"", b"POST /v1/ch", b"GET /health HTTP/1.1\r\nhost: localhost\r\nx-a: b\r\n"])
def test_first_lines_that_do_not_come_are_not_waited_for(sent: bytes, plug: socket.socket) -> None:
    plug.sendall(sent)
    assert code_of(rest_of(plug)) == (408, "request_timeout")


def test_first_lines_that_drip_are_not_waited_for_after_a_request_either(plug: socket.socket) -> None:
    plug.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert plug.recv(65536).startswith(b"HTTP/1.1 200")
    begin = time.monotonic()
    for byte in b"GET /health HTTP/1.1\r\nhost: localhost\r\n" * 3:
        try:
            plug.sendall(bytes([byte]))
        except OSError:
            break
        time.sleep(0.05)
    assert time.monotonic() - begin < 5  # seconds; all of it would take 6


LENGTH = "content-length: 500"


@pytest.mark.parametrize(
    "body, more", [(b"", LENGTH), (b"{", LENGTH), (b"5\r\nhello\r\n", "transfer-encoding: chunked")]
)
def test_a_body_that_does_not_come_is_not_waited_for(body: bytes, more: str, plug: socket.socket) -> None:
    plug.sendall(head(more) + body)
    assert code_of(rest_of(plug)) == (408, "request_timeout")


def test_a_body_that_drips_is_not_waited_for(plug: socket.socket) -> None:
    plug.sendall(head("content-length: 5000"))
    for _ in range(8):
        plug.sendall(b" " * 10)
        time.sleep(0.2)
    assert code_of(rest_of(plug)) == (408, "request_timeout")


def test_what_follows_a_refusal_is_dropped_and_then_cut(plug: socket.socket) -> None:
    """A refused body goes on: the refusal arrives, and nobody listens for ever."""
    plug.sendall(head("transfer-encoding: chunked", key="wrong"))
    answer = b""
    while b"}}" not in answer:
        answer += plug.recv(65536)
    assert code_of(answer) == (401, "invalid_api_key")
    plug.settimeout(5)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012
        for _ in range(500):
            plug.sendall(b"400\r\n" + bytes(1024) + b"\r\n")
            time.sleep(0.02)


NO_HTTP = {
    "words": (b"hello there\r\n\r\n", 400),
    "two lengths": (head("content-length: 5", "content-length: 6"), 400),
    "a long line": (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", 431),
    "long headers": (head("x-long: " + "a" * 40_000, "connection: close"), 431),
    "endless headers": (head()[:-2] + b"x: " + b"a" * 300_000, 431),
    "a header without a name": (head(": x"), 400),
}


@pytest.mark.parametrize("name", NO_HTTP)
def test_what_is_no_http_is_told_so(name: str, plug: socket.socket) -> None:
    sent, status = NO_HTTP[name]
    plug.sendall(sent)
    answer = rest_of(plug)
    assert code_of(answer)[0] == status


def test_headers_have_a_number(hasty: Running) -> None:
    with hasty.client(**{f"x-{n}": "y" for n in range(120)}) as client:
        answer = client.get("/v1/models")
    assert answer.status_code == 431 and answer.json()["error"]["code"] == "headers_too_large"


# ---------------------------------------------------------------- what goes out


def test_who_does_not_read_is_let_go(hasty: Running) -> None:
    """The answer waits for its reader; after a while it is cancelled, and its pages are free."""
    with socket.socket() as plug:
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plug.connect(("127.0.0.1", int(hasty.url.rsplit(":", 1)[1])))
        body = json.dumps({"input": "hello there. " * 300, "response_format": "pcm", "voice": "x"}).encode()
        plug.sendall(head(f"content-length: {len(body)}", path="/v1/audio/speech") + body)
        assert plug.recv(10)
        assert hasty.idle(30)


def test_a_reader_that_goes_on_is_kept() -> None:
    """A watch looks at progress, not at time alone."""

    class Pipe:
        left = 100 << 10
        cut = False

        def get_write_buffer_size(self) -> int:
            return self.left

        def abort(self) -> None:
            self.cut = True

    async def read(step: int) -> Pipe:
        pipe = Pipe()
        watch = protocol.ReaderWatch(asyncio.get_running_loop(), pipe, 0.01)
        watch.begin()
        for _ in range(5):
            pipe.left -= step
            await asyncio.sleep(0.011)
        watch.end()
        return pipe

    assert not asyncio.run(read(protocol.SLOW_BYTES)).cut and asyncio.run(read(10)).cut


# ---------------------------------------------------------------- shares


def test_a_key_has_its_share_and_others_have_theirs() -> None:
    shares = Shares(ServerSettings(requests_per_key=2, sockets_per_key=1, sockets=2))
    one, two = tenant_of(KEY.encode()), tenant_of(OTHER_KEY.encode())
    assert one != two and KEY not in one
    with shares.taken("request", one), shares.taken("request", one):
        with pytest.raises(RequestError) as caught, shares.taken("request", one):
            pass
        assert (caught.value.status, caught.value.code, caught.value.headers["retry-after"]) == (
            429, "concurrency_limited", "1",
        )  # fmt: skip
        with shares.taken("request", two), shares.taken("socket", one), shares.taken("socket", two):
            with pytest.raises(RequestError, match="too many sockets") as caught, shares.taken("socket", ""):
                pass
            assert caught.value.status == 503
    assert not shares.open["request"] and not shares.open["socket"]
    with shares.taken("request", ""), shares.taken("request", ""), shares.taken("request", ""):
        pass  # a server without keys has nobody to share with


def test_the_third_request_of_a_key_waits_for_no_place(hasty: Running) -> None:
    waiting = [connected(hasty) for _ in range(2)]
    for plug in waiting:
        plug.sendall(head("content-length: 500"))
    time.sleep(0.1)
    with hasty.client() as client:
        refused = client.post(CHAT, json=ASK)
        assert refused.status_code == 429 and refused.json()["error"]["code"] == "concurrency_limited"
        assert client.post(CHAT, json=ASK, headers={"authorization": f"Bearer {OTHER_KEY}"}).status_code == 200
        for plug in waiting:
            rest_of(plug)
            plug.close()
        assert client.post(CHAT, json=ASK).status_code == 200


def test_ids_of_one_key_mean_nothing_to_another() -> None:
    kept = SpokenAnswers()
    TENANT.set("one")
    name, _ = kept.keep("what was said")
    assert kept.text(name) == "what was said"
    TENANT.set("two")
    assert kept.text(name) is None
    TENANT.set("")


def test_beginnings_are_shared_within_a_key_alone(hasty: Running) -> None:
    """No other key can tell by usage, or by time, what this one has asked."""
    ask = {**ASK, "messages": [{"role": "user", "content": "a long beginning that is read once " * 8}]}

    def cached(key: str) -> int:
        with hasty.client(authorization=f"Bearer {key}") as client:
            usage = client.post(CHAT, json=ask).json()["usage"]
        return int(usage["prompt_tokens_details"]["cached_tokens"])

    first, again, other = cached(KEY), cached(KEY), cached(OTHER_KEY)
    assert again > 200 and max(first, other) <= 16  # of the template, which each key has asked before


# ---------------------------------------------------------------- pages in browsers


def test_pages_of_an_allowed_origin_may_read_answers(hasty: Running) -> None:
    asks = {"origin": ORIGIN, "access-control-request-method": "POST"}
    before = httpx.options(f"{hasty.url}{CHAT}", headers=asks)
    assert before.status_code == 204 and before.headers["access-control-allow-origin"] == ORIGIN
    with hasty.client(origin=ORIGIN) as client:
        answer = client.post(CHAT, json=ASK)
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == ORIGIN
    assert "credentials" not in str(answer.headers)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://page.example.evil.example"])
def test_pages_of_other_origins_may_not(origin: str, hasty: Running) -> None:
    asks = {"origin": origin, "access-control-request-method": "POST"}
    for answer in (
        httpx.options(f"{hasty.url}{CHAT}", headers=asks),
        httpx.post(f"{hasty.url}{CHAT}", headers={"origin": origin, "authorization": f"Bearer {KEY}"}, json=ASK),
    ):
        assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers


def test_a_preflight_opens_nothing_else(hasty: Running) -> None:
    assert httpx.options(f"{hasty.url}{CHAT}", headers={"origin": ORIGIN}).status_code == 401
    assert httpx.options(f"{hasty.url}{CHAT}").status_code == 401


@pytest.mark.parametrize("extra", [[("authorization", f"Bearer {KEY}")], [("authorization", "Bearer x")]])
def test_two_keys_are_none(extra: list[tuple[str, str]], hasty: Running) -> None:
    headers = [("authorization", f"Bearer {KEY}"), *extra]
    assert httpx.get(f"{hasty.url}/v1/models", headers=headers).status_code == 401


# ---------------------------------------------------------------- sockets


def test_a_flood_of_events_is_held_back_and_then_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events come as fast as they are read: 200 a second of the meter's clock, and the end after 10 s."""
    clock = 0.0
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.receive", "text": "{}"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def sleep(seconds: float) -> None:
        nonlocal clock
        clock += seconds

    async def flood() -> int:
        paced = flow.Paced(receive, send)
        taken = 0
        while (await paced())["type"] == "websocket.receive":
            taken += 1
        return taken

    with monkeypatch.context() as patch:
        patch.setattr(flow.time, "monotonic", lambda: clock)
        patch.setattr(flow.asyncio, "sleep", sleep)
        talk = flood()
        with pytest.raises(StopIteration) as ended:
            talk.send(None)
    assert abs(ended.value.value - (flow.EVENTS_BURST + 200 * flow.FLOOD_S)) < 5 and abs(clock - flow.FLOOD_S) < 0.1
    assert sent[-1]["code"] == 1008 and '"rate_limited"' in sent[0]["text"]


def test_who_speaks_at_the_usual_pace_is_never_held_back() -> None:
    """50 events a second, the pace of sound in pieces of 20 ms, for an hour of the meter's clock."""
    clock = 0.0

    async def receive() -> dict[str, Any]:
        nonlocal clock
        clock += 0.02
        return {"type": "websocket.receive"}

    async def talk() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(flow.time, "monotonic", lambda: clock)
            patch.setattr(flow.asyncio, "sleep", None)  # it would be a wait
            paced = flow.Paced(receive, lambda message: asyncio.sleep(0))
            for _ in range(10_000):
                await paced()

    asyncio.run(talk())
