"""The armour: who may come in, what may be brought, what is told, and that nothing of it is left behind."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from descant.errors import OptionError
from descant.server.gate import OPEN, is_key, is_name
from descant.server.settings import read_settings
from tests.badinputs.case import said
from tests.badinputs.catalogue import ASK, CHAT, PICTURE
from tests.inputs import media as made
from tests.server.conftest import KEY, Running

LONG = {**ASK, "max_tokens": 3000, "stream": True, "temperature": 1.5}


def routes(server: Running) -> list[tuple[str, str]]:
    """Every route of the application, so that none is forgotten."""
    app = server.server.gate.app
    found = [(method, route.path) for route in app.routes for method in getattr(route, "methods", ())]  # type: ignore[attr-defined]
    named = ((method, path.replace("{name:path}", "tiny").replace("{name}", "tiny")) for method, path in found)
    return [(method, path) for method, path in named if method in ("GET", "POST")]


def test_every_route_but_three_needs_a_key(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.server.gate.state, "page", {})
    found = routes(server)
    assert len(found) >= 11 and set(OPEN) <= {path for _, path in found}
    for method, path in found:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer"}, {"authorization": KEY}):
            answer = httpx.request(method, server.url + path, headers=headers)
            expected = 404 if path == "/" else 200 if path in OPEN else 401  # a page that is not built
            assert answer.status_code == expected, (method, path)
        assert path in OPEN or answer.json()["error"]["code"] == "invalid_api_key"
    assert httpx.get(f"{server.url}/v1/models?api_key={KEY}").status_code == 401
    assert httpx.get(f"{server.url}/nothing", headers={"authorization": f"Bearer {KEY}"}).status_code == 404


HEADERS: dict[str, tuple[dict[str, str], int, str]] = {
    "another name": ({"host": "evil.example"}, 403, "host_not_allowed"),
    "a name with a path": ({"host": "localhost/../x"}, 403, "host_not_allowed"),
    "a name with a query": ({"host": "a/?x="}, 403, "host_not_allowed"),
    "another page": ({"origin": "https://evil.example"}, 403, "origin_not_allowed"),
    "no page": ({"origin": "null"}, 403, "origin_not_allowed"),
    "a packed body": ({"content-encoding": "gzip"}, 415, "unsupported_content_encoding"),
    "text": ({"content-type": "text/plain"}, 415, "unsupported_content_type"),
    "a huge body, as it says": ({"content-length": str(10 << 30)}, 413, "payload_too_large"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_are_refused(name: str, server: Running, client: httpx.Client) -> None:
    headers, status, code = HEADERS[name]
    given = {"content-type": "application/json", "authorization": f"Bearer {KEY}", **headers}
    lines = [f"POST {CHAT} HTTP/1.1", *(f"{key}: {value}" for key, value in {"host": "localhost", **given}.items())]
    if "content-length" not in headers:
        lines.append(f"content-length: {len(json.dumps(ASK))}")
    with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])), timeout=20) as plug:
        plug.sendall(("\r\n".join(lines) + "\r\n\r\n").encode() + json.dumps(ASK).encode())
        answer = plug.recv(65536).decode()
        while "}}" not in answer and (more := plug.recv(65536)):
            answer += more.decode()
    assert answer.startswith(f"HTTP/1.1 {status} ") and f'"code":"{code}"' in answer


def test_a_page_of_the_server_itself_may_ask(server: Running) -> None:
    with server.client(origin=server.url) as client:
        assert client.get("/v1/models").status_code == 200


def test_ids_of_requests(client: httpx.Client) -> None:
    assert client.get("/v1/models", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    for bad in ("a b", "x" * 65, "\x1b[31m"):
        assert client.get("/v1/models", headers={"x-request-id": bad}).headers["x-request-id"] != bad
    answer = client.get("/v1/models")
    assert len(answer.headers["x-request-id"]) == 32 and answer.headers["x-content-type-options"] == "nosniff"


def post(client: httpx.Client, body: dict[str, Any]) -> httpx.Response:
    data = json.dumps({**ASK, **body}).encode()
    return client.post(CHAT, content=data, headers={"content-type": "application/json"})


def test_a_body_that_is_longer_than_it_may_be_is_cut_off(client: httpx.Client) -> None:
    def endless() -> Any:
        for _ in range(100):
            yield b" " * 65536

    answer = client.post(CHAT, content=endless(), headers={"content-type": "application/json"})
    assert answer.status_code == 413 and answer.json()["error"]["code"] == "payload_too_large"


def test_who_finds_the_queue_full_is_told_when_to_come_again(
    client: httpx.Client, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    from descant.errors import BusyError

    def full(*_: object, **__: object) -> object:
        raise BusyError("64 requests wait already; try again in 3 s", 2.2)

    monkeypatch.setattr(server.omni.engine, "submit", full)
    answer = post(client, {})
    assert answer.status_code == 429 and answer.headers["retry-after"] == "3"


def test_a_bug_is_told_without_its_words(
    client: httpx.Client, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.omni.engine, "submit", lambda *_: 1 / 0)
    answer = post(client, {})
    assert answer.status_code == 500 and answer.json()["error"]["code"] == "internal"
    assert "division" not in answer.text


# ---------------------------------------------------------------- clients who leave


def leave_after(server: Running, events: int, body: dict[str, Any], path: str = CHAT) -> None:
    """Begin to read a stream, and hang up."""
    with server.client() as client, client.stream("POST", path, json=body) as answer:
        lines = answer.iter_raw()
        for _ in range(events):
            next(lines)


PHASES: dict[str, Callable[[Running], None]] = {
    "before the first event": lambda server: leave_after(server, 0, LONG),
    "in the text": lambda server: leave_after(server, 3, LONG),
    "in the sound": lambda server: leave_after(
        server, 12, {**LONG, "modalities": ["text", "audio"], "audio": {"voice": "x", "format": "opus"}}
    ),
    "while it is spoken": lambda server: leave_after(
        server, 1, {"input": "hello there. " * 200, "response_format": "pcm"}, "/v1/audio/speech"
    ),
}


@pytest.mark.parametrize("name", PHASES)
def test_a_client_that_leaves_leaves_nothing_behind(name: str, server: Running) -> None:
    for _ in range(3):
        PHASES[name](server)
    assert server.idle(), server.omni.engine.ledger()


def test_a_client_that_does_not_wait_for_a_whole_answer(server: Running) -> None:
    with server.client() as client, pytest.raises(httpx.ReadTimeout):
        client.post(CHAT, json={**LONG, "stream": False, "n": 8}, timeout=0.2)
    assert server.idle(), server.omni.engine.ledger()


def long_video() -> bytes:
    """30 s of pictures and sound."""
    frames = made.grey_frames([2 * n for n in range(120)], 96, 128)
    return made.video_file(frames, 4, codec="libx264", sound=made.tone(30, 48000))


def test_no_step_of_the_event_loop_takes_long_while_a_long_video_is_read(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What decodes, lays out and hashes runs elsewhere: each step of the loop is counted by the CPU time of its thread,
    which no other process lengthens. (How late the loop is by the clock: benchmarks/lag.py.)"""
    steps: list[float] = []
    real = asyncio.Handle._run  # type: ignore[attr-defined]

    def counted(handle: object) -> None:
        begin = time.thread_time()
        real(handle)
        steps.append(time.thread_time() - begin)

    url = "data:video/mp4;base64," + b64encode(long_video()).decode()
    content = [{"type": "video_url", "video_url": {"url": url}}, {"type": "image_url", "image_url": {"url": PICTURE}}]
    body = json.dumps({**ASK, "messages": said(content)}).encode()
    assert len(body) < server.server.gate.settings.body_bytes
    monkeypatch.setattr(asyncio.Handle, "_run", counted)
    with server.client() as client:
        answer = client.post(CHAT, content=body, headers={"content-type": "application/json"})
    monkeypatch.undo()
    assert answer.status_code == 200 or "leaves no room" in answer.text, answer.text  # read, and counted in tokens
    assert len(steps) > 10 and max(steps) < 0.05 and server.idle()


# ---------------------------------------------------------------- settings


def test_a_key_is_compared_whole() -> None:
    keys = ("k" * 20, "l" * 20)
    assert is_key(b"Bearer " + b"l" * 20, keys) and is_key(b"bearer " + b"k" * 20, keys) and is_key(b"", ())
    assert not any(is_key(given, keys) for given in (b"", b"Bearer", b"Basic " + b"k" * 20, b"Bearer " + b"k" * 19))


@pytest.mark.parametrize(("host", "fine"), [("localhost:80", True), ("[::1]:9", True), ("a b", False), ("a:x", False)])
def test_names_of_hosts(host: str, fine: bool) -> None:
    assert is_name(host) is fine


def test_other_machines_need_a_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    with pytest.raises(OptionError, match="there is no key"):
        read_settings(None, {"host": "0.0.0.0"})
    with pytest.raises(OptionError, match="at least 16 characters"):
        read_settings(None, {"api_keys": ("short",)})
    with pytest.raises(OptionError, match="both --tls-certificate"):
        read_settings(None, {"tls_key": tmp_path})
    with pytest.raises(OptionError, match="wrong"):
        read_settings(None, {"port": 99999})
    file = tmp_path / "server.toml"
    file.write_text('port = 9000\nmodel = "folder"\n')
    monkeypatch.setenv("DESCANT_MODEL", "environment")
    monkeypatch.setenv("DESCANT_API_KEYS", json.dumps([KEY]))
    settings = read_settings(file, {"host": "0.0.0.0", "model": None})
    assert (settings.port, settings.model, settings.api_keys) == (9000, "environment", (KEY,))
    assert read_settings(file, {"model": "flag"}).model == "flag" and settings.address == "http://0.0.0.0:9000"
    with pytest.raises(OptionError, match="no file"):
        read_settings(tmp_path / "none.toml", {})


@pytest.mark.parametrize("typed", [f"{KEY}, {KEY[::-1]}", json.dumps([KEY, KEY[::-1]])])
def test_a_list_in_the_environment_is_typed_as_people_do(monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    monkeypatch.setenv("DESCANT_API_KEYS", typed)
    monkeypatch.setenv("DESCANT_ALLOWED_HOSTS", "one.example,two.example")
    settings = read_settings(None, {})
    assert settings.api_keys == (KEY, KEY[::-1]) and settings.allowed_hosts == ("one.example", "two.example")
    for wrong in ("[not json", "short", '["short"]', f"{KEY},short"):
        monkeypatch.setenv("DESCANT_API_KEYS", wrong)
        with pytest.raises(OptionError, match="wrong"):
            read_settings(None, {})
