"""The events of one answer, taken on any thread or in any event loop."""

from __future__ import annotations

import asyncio
import queue
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from descant.errors import SessionError
from descant.tools import ToolCall
from descant.types import AudioChunk, Called, Event, Finished, TextDelta

if TYPE_CHECKING:
    from descant.engine.engine import Engine

AnswerItem = Event | Exception | None  # None: nothing more comes


@dataclass
class AnswerRecord:
    """An answer so far: kept by whoever asked, also when the answer itself is gone."""

    number: int
    text: str = ""
    samples: int = 0
    calls: list[ToolCall] = field(default_factory=list)
    complete: bool = False  # text and sound are all there
    over: bool = False  # nothing more comes


class Answer:
    """The events of one request, to be iterated by one reader, ``for`` or ``async for``. Dropping it cancels it.

    The engine must have been started: its worker makes the events.
    """

    def __init__(self, engine: Engine, number: int):
        self.number = number
        self.cancelled = threading.Event()
        self.events: queue.SimpleQueue[AnswerItem] = queue.SimpleQueue()
        self.record = AnswerRecord(number)
        self.owner: object = None  # a live session, which lives as long as its answers
        self._engine = engine  # which lives as long as its answers
        self._reader = threading.Lock()  # held by the one loop that takes the events
        self._bell: Callable[[], object] | None = None
        self._leave = weakref.finalize(self, engine.cancel, number)
        self._leave.atexit = False

    def __iter__(self) -> Iterator[Event]:
        """Until the answer is finished or cancelled. Raises what made it fail; leaving the loop cancels the answer.

        SessionError: another loop takes its events.
        """
        self._enter()
        try:
            while self._more():
                item = self.events.get()
                if item is None or self.cancelled.is_set():
                    return
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self._left()

    async def __aiter__(self) -> AsyncIterator[Event]:
        """The same in an event loop, which is never blocked."""
        loop = asyncio.get_running_loop()
        rung = asyncio.Event()

        def ring() -> None:
            try:
                loop.call_soon_threadsafe(rung.set)
            except RuntimeError:  # the loop was closed around its reader, who will take nothing more
                self._bell = None
                self.cancel()

        self._enter()
        self._bell = ring
        try:
            while self._more():
                if self.events.empty():
                    rung.clear()
                    if self.events.empty():
                        await rung.wait()
                    continue
                item = self.events.get()
                if item is None or self.cancelled.is_set():
                    return
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self._bell = None
            self._left()

    def cancel(self) -> None:
        """No event is given any more from here on; what the answer holds is free when the next step begins."""
        if self.cancelled.is_set():
            return
        self.cancelled.set()
        self._leave()
        self.put(None)

    def put(self, item: AnswerItem) -> None:
        """The worker's side: hand over what is new."""
        record = self.record
        if isinstance(item, TextDelta):
            record.text += item.text
        elif isinstance(item, AudioChunk):
            record.samples += len(item.samples)
        elif isinstance(item, Called):
            record.calls.append(item.call)
        elif isinstance(item, Finished):
            record.complete = True
        elif item is None:
            record.over = True
        self.events.put(item)
        if (bell := self._bell) is not None:
            bell()

    def fail(self, why: Exception) -> None:
        """The worker's side: it ends with an error, unless it is over."""
        if not self.record.over:
            self.put(why)
            self.put(None)

    def _enter(self) -> None:
        """Begin to take events: one loop at a time, in the process that makes them."""
        self._engine.check_process()
        if not self._reader.acquire(blocking=False):
            raise SessionError("another loop takes the events of this answer already; ask again for events of your own")

    def _more(self) -> bool:
        """True if there is, or will be, something to take."""
        return not self.cancelled.is_set() and not (self.record.over and self.events.empty())

    def _left(self) -> None:
        """The reader is gone: what nobody will read is not made."""
        self._reader.release()
        if not self.record.over:
            self.cancel()
