"""Whose request it is, and how much of the server one key may have at once."""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from descant.errors import RequestError
from descant.server.settings import ServerSettings

ShareKind = Literal["request", "socket"]
_salt = secrets.token_bytes(16)  # of this process: a tenant's name tells nothing about its key


def share_salt(salt: bytes) -> None:
    """Name tenants as the other processes do that have this salt, and keep things together with this one."""
    global _salt
    _salt = salt


def tenant_of(key: bytes) -> str:
    """The name of a key's holder; "" without a key."""
    return hashlib.blake2s(key, key=_salt, digest_size=12).hexdigest() if key else ""


class Shares:
    """Counts what is open, by tenant. Only used on the event loop."""

    def __init__(self, settings: ServerSettings):
        self.settings = settings
        self.open: dict[ShareKind, Counter[str]] = {"request": Counter(), "socket": Counter()}

    @contextmanager
    def taken(self, kind: ShareKind, tenant: str) -> Iterator[None]:
        """One more, as long as the block lasts. Raises RequestError where the share is used up."""
        counts = self.open[kind]
        most = self.settings.requests_per_key if kind == "request" else self.settings.sockets_per_key
        if tenant and counts[tenant] >= most:  # without keys there is nobody to share with
            raise RequestError(
                429, "concurrency_limited", f"this key has {most} {kind}s open already; wait until one has ended",
                "rate_limit_error", headers={"retry-after": "1"},
            )  # fmt: skip
        if kind == "socket" and counts.total() >= self.settings.sockets:
            raise RequestError(
                503, "overloaded", "too many sockets are open", "overloaded_error", headers={"retry-after": "5"}
            )
        counts[tenant] += 1
        try:
            yield
        finally:
            counts[tenant] -= 1
            if not counts[tenant]:
                del counts[tenant]
