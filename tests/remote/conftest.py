"""A real server, and one that says what a test tells it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.server.conftest import server  # noqa: F401 - a fixture


@dataclass
class Scripted:
    """A server of fixed responses. replies: path -> (status, body); asked: the bodies that came; headers: of the last.

    A body is sent without a length, and the connection is closed after it: where it ends, it breaks off.
    """

    url: str = ""
    replies: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    def models(self, *names: str) -> None:
        self.replies["/v1/models"] = (200, json.dumps({"data": [{"id": name} for name in names]}).encode())

    def stream(self, *chunks: object, done: bool = True) -> None:
        """Answer completions by these chunks."""
        told = [f"data: {chunk if isinstance(chunk, str) else json.dumps(chunk)}\n\n" for chunk in chunks]
        told += ["data: [DONE]\n\n"] if done else []
        self.replies["/v1/chat/completions"] = (200, "".join(told).encode())


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    script = Scripted()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            script.headers = {name.lower(): value for name, value in self.headers.items()}
            if length := int(self.headers.get("content-length", 0)):
                script.asked.append(json.loads(self.rfile.read(length)))
            status, body = script.replies.get(self.path, (404, b'{"error": {"message": "no such path"}}'))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        do_GET = answer
        do_POST = answer

        def log_message(self, format: str, *args: object) -> None:
            """Nothing is logged."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as home:
        script.url = f"http://127.0.0.1:{home.server_port}"
        thread = threading.Thread(target=home.serve_forever, daemon=True)
        thread.start()
        yield script
        home.shutdown()
        thread.join()


def chunk(text: str = "", sound: bytes = b"", reason: str | None = None) -> dict[str, Any]:
    """One chunk of a completion."""
    from base64 import b64encode

    delta: dict[str, Any] = {"content": text} if text else {}
    if sound:
        delta["audio"] = {"data": b64encode(sound).decode()}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
