"""Short-lived tickets to one realtime talk, for browsers, which must not hold a key: bought with a key, used once."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from descant.server.realtime_session import RealtimeSession

PREFIX = "ek_"
MOST_TICKETS = 10_000  # that wait to be used; beyond that the oldest are void


@dataclass
class Tickets:
    """All tickets that wait: their values, until when they are good (``time.monotonic``), and their sessions."""

    waiting: OrderedDict[str, tuple[float, RealtimeSession]] = field(default_factory=OrderedDict)

    def sell(self, session: RealtimeSession, seconds: float) -> str:
        """A new ticket, good for so many seconds."""
        value = PREFIX + secrets.token_hex(24)
        self.waiting[value] = (time.monotonic() + seconds, session)
        while len(self.waiting) > MOST_TICKETS:
            self.waiting.popitem(last=False)
        return value

    def use(self, value: str) -> RealtimeSession | None:
        """The session of a ticket, which is void from now on; None: it is unknown, used or too old."""
        until, session = self.waiting.pop(value, (0.0, None))
        return session if until > time.monotonic() else None
