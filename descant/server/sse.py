"""Server-sent events."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from descant.server.errors import body_of_error, request_error

log = logging.getLogger(__name__)


def sse(body: dict[str, Any]) -> bytes:
    """One event."""
    return b"data: " + json.dumps(body).encode() + b"\n\n"


async def guarded(events: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    """A stream whose failure is its last event: the response has begun, and no status can tell it any more."""
    async with aclosing(events):
        try:
            async for event in events:
                yield event
        except Exception as error:
            told = request_error(error)
            if told.status == 500:
                log.exception("a stream failed")
            yield sse(body_of_error(told))
