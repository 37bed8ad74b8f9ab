"""Server-sent events."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from descant.server.errors import body_of_error, request_error
from descant.types import Progress

Item = TypeVar("Item")
log = logging.getLogger(__name__)


def sse(body: dict[str, Any]) -> bytes:
    """One event."""
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def progress_note(progress: Progress) -> bytes:
    """A comment of the stream, which clients skip: how far the work before an answer is, for whoever wants to show it.

    ": reading 1200 2870" are tokens of the prompt that are read, of all; ": queued 2 5" requests before it, of all.
    """
    return f": {progress.stage} {progress.done} {progress.total}\n\n".encode()


async def merged_streams(streams: Sequence[AsyncGenerator[Item, None]]) -> AsyncGenerator[tuple[int, Item], None]:
    """The items of several streams as they come, each with its stream's number. The first failure ends all."""
    waiting = {asyncio.ensure_future(anext(stream, None)): number for number, stream in enumerate(streams)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=lambda task: waiting[task]):
                number = waiting.pop(task)
                if (item := task.result()) is not None:
                    waiting[asyncio.ensure_future(anext(streams[number], None))] = number
                    yield number, item
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for stream in streams:
            await stream.aclose()


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
