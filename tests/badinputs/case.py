"""The parts that a case is made of: what is sent, and what is right to answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "seed": 1, "max_tokens": 6}
Body = bytes | Callable[[], bytes] | dict[str, Any] | None


@dataclass(frozen=True)
class Http:
    """A request. body: bytes (or what makes them), or fields that spoil ASK. key: whether it bears the key."""

    body: Body = None
    path: str = CHAT
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    key: bool = True

    def data(self, model: str) -> bytes | None:
        """The bytes of the body."""
        if isinstance(self.body, dict):
            return json.dumps({**ASK, "model": model, **self.body}).encode()
        return self.body() if callable(self.body) else self.body


@dataclass(frozen=True)
class Wire:
    """Bytes on the wire, by a function of (host and key headers) -> pieces. After them the answer is read."""

    pieces: Callable[[bytes], list[bytes]]


@dataclass(frozen=True)
class Talk:
    """Events on a WebSocket. wants: codes of error events, one of which must come (empty: a session that goes on);
    closed: close codes, one of which must come."""

    events: tuple[str | bytes, ...] | Callable[[], tuple[str | bytes, ...]] = ()
    wants: tuple[str, ...] = ()
    closed: tuple[int, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    key: bool = True
    query: str = ""
    refused: tuple[int, ...] = ()  # statuses instead of a WebSocket


@dataclass(frozen=True)
class Case:
    """One case of the catalogue. id: of its section and number; right: statuses, one of which must come; codes: of an
    error, one of which must come (empty: any); slow: takes seconds."""

    id: str
    name: str
    sends: Http | Wire | Talk
    right: tuple[int, ...] = (400,)
    codes: tuple[str, ...] = ()
    slow: bool = False


def said(content: object, role: str = "user") -> list[dict[str, Any]]:
    return [{"role": role, "content": content}]


def fields(case: str, name: str, spoilt: dict[str, Any], right: int | tuple[int, ...] = 400, *codes: str) -> Case:
    """A case of one request with some fields of its own."""
    return Case(case, name, Http(spoilt), (right,) if isinstance(right, int) else right, codes)


def made(maker: Callable[[], bytes]) -> Callable[[], bytes]:
    """A file that is made when it is first sent."""
    return cache(maker)
