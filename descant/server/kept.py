"""Responses that later ones go on from: kept for a while, by whose key they are."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Any

from descant.errors import RequestError
from descant.omni import TENANT
from descant.types import Audio, Image, Message, Text, Video

KEPT_RESPONSES = 1000
KEPT_BYTES = 256 << 20  # of messages, media among them; the oldest go first
KEPT_RESPONSE_S = 3600.0  # seconds


@dataclass(frozen=True)
class KeptResponse:
    """A response as it was told, and the conversation up to its end, without instructions. size: bytes of it beside its
    messages, which it may share with the responses that brought them."""

    record: dict[str, Any]
    messages: tuple[Message, ...]
    size: int


class KeptResponses:
    """Responses by (tenant, id): nobody gets one that another key asked for. May be used from any thread.

    bytes: that are held, of messages that several responses share once.
    """

    def __init__(self, most: int = KEPT_RESPONSES, most_bytes: int = KEPT_BYTES):
        self.most = most
        self.most_bytes = most_bytes
        self.bytes = 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str], tuple[float, KeptResponse]] = OrderedDict()
        self._holders: Counter[int] = Counter()  # responses that hold a message, by its identity

    def keep(
        self, record: dict[str, Any], before: tuple[Message, ...], new: tuple[Message, ...], beside: int = 0
    ) -> None:
        """Keep a response: what was said before it, and what it adds, its answer included. beside: bytes of what it
        holds beside its messages."""
        messages = before + new
        kept = KeptResponse(record, messages, beside)
        with self._lock:
            self._kept[TENANT.get(), record["id"]] = time.monotonic() + KEPT_RESPONSE_S, kept
            self.bytes += beside
            for message in messages:
                self._holders[id(message)] += 1
                self.bytes += bytes_of_message(message) if self._holders[id(message)] == 1 else 0
            while self._kept and (len(self._kept) > self.most or self.bytes > self.most_bytes):
                self._drop(next(iter(self._kept)))

    def get(self, name: str) -> KeptResponse:
        """A response that was kept. Raises RequestError."""
        key = TENANT.get(), name
        with self._lock:
            until, kept = self._kept.get(key, (0.0, None))
            if kept is not None and until > time.monotonic():
                return kept
            self._drop(key)
        raise RequestError(
            404, "response_not_found", "no response of this id is kept; send the conversation as input instead"
        )

    def remove(self, name: str) -> None:
        """Forget a response. Raises RequestError if there is none."""
        self.get(name)
        with self._lock:
            self._drop((TENANT.get(), name))

    def _drop(self, key: tuple[str, str]) -> None:
        """Forget a response, if it is there, and what it alone held."""
        _, kept = self._kept.pop(key, (0.0, None))
        if kept is None:
            return
        self.bytes -= kept.size
        for message in kept.messages:
            self._holders[id(message)] -= 1
            if not self._holders[id(message)]:
                del self._holders[id(message)]
                self.bytes -= bytes_of_message(message)


def bytes_of_message(message: Message) -> int:
    """The size of a message: of its texts and its files."""
    size = 0
    for part in message.content:
        match part:
            case Text():
                size += len(part.text)
            case Image() | Audio() | Video():
                size += len(part.source) if isinstance(part.source, bytes) else 0
            case _:
                size += sum(len(value) for value in vars(part).values())
    return size
