"""Meters for input: bodies by bytes and time, events of a socket by number."""

from __future__ import annotations

import asyncio
import json
import time

from starlette.types import Message, Receive, Send

from descant.errors import RequestError
from descant.server.errors import body_of_error
from descant.server.settings import ServerSettings

EVENTS_PER_S = 200.0  # of one socket
EVENTS_BURST = 400
FLOOD_S = 10.0  # seconds that a socket may be held back without a pause, before it is closed


class Metered:
    """A body that may not be longer than its budget, whatever its length was said to be, nor come too slowly."""

    def __init__(self, receive: Receive, settings: ServerSettings):
        self.receive = receive
        self.settings = settings
        self.left = settings.body_bytes
        self.end = time.monotonic() + settings.body_s
        self.complete = False

    async def __call__(self) -> Message:
        if self.complete:
            return await self.receive()
        try:
            async with asyncio.timeout(min(self.settings.stall_s, max(0.0, self.end - time.monotonic()))):
                message = await self.receive()
        except TimeoutError:
            raise RequestError(408, "request_timeout", "the body came too slowly") from None
        if message["type"] == "http.disconnect":
            raise RequestError(499, "client_closed", "the client left before its body had come")
        self.left -= len(message.get("body", b""))
        if self.left < 0:
            raise too_large(self.settings.body_bytes)
        self.complete = not message.get("more_body", False)
        return message


class Paced:
    """The events of a socket, no faster than they may come. Who sends more is not read (TCP makes it wait), and who
    does so for FLOOD_S is let go."""

    def __init__(self, receive: Receive, send: Send):
        self.receive = receive
        self.send = send
        self._tokens = float(EVENTS_BURST)
        self._at = time.monotonic()
        self._flood = 0.0  # seconds of waiting without a pause

    async def __call__(self) -> Message:
        message = await self.receive()
        if message["type"] != "websocket.receive":
            return message
        self._refill()
        if self._tokens >= 1:
            self._flood = self._flood if self._tokens < EVENTS_BURST / 2 else 0.0
            self._tokens -= 1
            return message
        wait = (1 - self._tokens) / EVENTS_PER_S
        self._flood += wait
        if self._flood > FLOOD_S:
            refusal = RequestError(429, "rate_limited", f"over {EVENTS_PER_S:g} events a second", "rate_limit_error")
            await self.send({"type": "websocket.send", "text": json.dumps({"type": "error", **body_of_error(refusal)})})
            await self.send({"type": "websocket.close", "code": 1008, "reason": "too many events"})
            return {"type": "websocket.disconnect", "code": 1008}
        await asyncio.sleep(wait)
        self._refill()
        self._tokens -= 1
        return message

    def _refill(self) -> None:
        now = time.monotonic()
        self._tokens = min(EVENTS_BURST, self._tokens + (now - self._at) * EVENTS_PER_S)
        self._at = now


def too_large(most: int) -> RequestError:
    """The refusal of a body that is too long."""
    return RequestError(413, "payload_too_large", f"the body has more than {most:,} bytes; send less at once")
