"""Many answers at once: admit -> read -> think -> talk -> decode -> emit, one step after another, on one thread.

Whoever wants an answer submits a request, from any thread, and iterates over the events of its ``Answer``; whoever
talks opens a live session, and is heard before it asks. One worker owns the models; what others say to it waits in an
inbox until the next step begins.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from functools import partial
from itertools import count

import torch

from descant.engine.answer import Answer, Item
from descant.engine.floor import Floor
from descant.engine.limits import Ledger, Limits
from descant.engine.seat import Asked
from descant.engine.session import Models, Phase, Request, new_context, open_session, room, start_codec
from descant.engine.talk import Talk
from descant.errors import BusyError, SessionError
from descant.inputs.rows import Rows

log = logging.getLogger(__name__)
PATIENCE = 0.01  # seconds between two looks at whether a reader takes events again


class Engine(Floor):
    """One set of models that serves many answers at once. Its own methods may be called from any thread."""

    def __init__(self, models: Models, limits: Limits | None = None):
        super().__init__(models, limits or Limits())
        self.faults = 0  # times that the engine was idle and its ledger was not
        self._threads = self.limits.threads or torch.get_num_threads()
        self._lock = threading.Lock()  # of the two lines below, which every thread may read
        self._queued = self._talks = 0
        self._closed = False
        self._numbers = count(1)
        self._wake, self._stop = threading.Event(), threading.Event()
        self._worker: threading.Thread | None = None

    def submit(self, request: Request) -> Answer:
        """Ask for an answer; what is wrong with the request is found here, on the thread that asks.

        OptionError: it is impossible. BusyError: the queue is full, or it could never fit.
        """
        promise = self.limits.pages(*room(request))
        session = open_session(self.models, request, self.stores)
        if not self.fits(promise):
            tokens, rows = room(request)
            raise BusyError(
                f"a request of up to {tokens} tokens and {rows} rows of speech cannot fit an engine of "
                f"{self.limits.tokens} and {self.limits.rows}; shorten it, or lower max_tokens"
            )
        answer = self._enqueue()
        asked = Asked(weakref.ref(answer), request, promise, session)
        self._post(partial(self.enter_queue, answer.number, asked))
        return answer

    def open(self, request: Request, system: Rows, closing: Rows, *, context: int, drop: bool) -> int:
        """Open a live session; returns its number. request: what its answers have in common; see `Talk`.

        BusyError: too many are open.
        """
        with self._lock:
            self._check_open()
            if self._talks >= self.limits.talks:
                raise BusyError(f"{self._talks} live sessions are open already; close one")
            self._talks, number = self._talks + 1, next(self._numbers)
        space = new_context(self.stores, speech=request.voice is not None, tenant=request.tenant)
        talk = Talk(self.models, space, request, system, closing, context, drop)
        self._post(partial(self.open_talk, number, talk))
        return number

    def hear(self, number: int, draft: Rows) -> None:
        """The turn that a live session is making, as far as it has come."""
        self._post(partial(self.with_talk, number, lambda talk: talk.hear(draft)))

    def caught_up(self, number: int) -> bool:
        """Whether all that a live session was told of is read. A look from another thread: it may be old."""
        seat = self.seats.get(number)
        return seat is None or not seat.session.context.unread

    def ask(self, number: int, turn: Rows, request: Request) -> Answer:
        """The turn of a live session is complete: answer it. BusyError: the queue is full."""
        codec = start_codec(self.models, request)
        answer = self._enqueue()
        asked = Asked(weakref.ref(answer), request, (0, 0), seat=number, codec=codec)
        self._post(partial(self.ask_talk, answer.number, turn, asked))
        return answer

    def cut(self, number: int, answer: int, characters: int) -> None:
        """In a live session, only so many characters of the reply that this answer gave were heard."""
        self._post(partial(self.with_talk, number, lambda talk: talk.cut(answer, characters)))

    def leave(self, number: int) -> None:
        """A live session is over. Harmless when repeated."""
        self._post(partial(self._close_talk, number))

    def cancel(self, number: int) -> None:
        """An answer is not wanted any more. Harmless when it has ended."""
        self._post(partial(self.cancel_answer, number))

    def estimate(self) -> float:
        """Seconds until a request that came now would be served, from how long the last answers took."""
        mean = sum(self.took) / len(self.took)
        return mean * (1 + self._queued / max(1, self.limits.sessions))

    def start(self) -> None:
        """Serve on a thread of its own, until ``close``, or until nobody holds the engine or an answer of it."""
        with self._lock:
            if self._worker is None and not self._closed:
                told = weakref.ref(self), self._stop, self._wake, self._threads
                self._worker = threading.Thread(target=serve, args=told, name="descant-engine", daemon=True)
                weakref.finalize(self, halt, self._stop, self._wake, self._worker)
                self._worker.start()

    def close(self) -> None:
        """Cancel everything and end the worker."""
        with self._lock:
            self._closed = True
        if self._worker is not None:
            halt(self._stop, self._wake, self._worker)
        self._abandon(SessionError("the engine was closed"))

    def ledger(self) -> Ledger:
        """What is lent out now."""
        seats = list(self.seats.values())
        return Ledger(
            sum(not seat.listens for seat in seats),
            self._talks,
            self._queued,
            self.stores.thinker.used,
            self.stores.talker.used if self.stores.talker else 0,
            *self.promised(),
            sum(seat.session.speech is not None for seat in seats),
            sum(seat.session.context.encoded for seat in seats),
        )

    def check(self) -> None:
        """Deep check of all pages; call it while the engine rests. RuntimeError names what is out of order."""
        contexts = [seat.session.context for seat in self.seats.values()]
        self.stores.thinker.check([context.thought for context in contexts])
        if self.stores.talker is not None:
            self.stores.talker.check([context.sung for context in contexts if context.sung is not None])

    def next_of(self, answer: Answer) -> Item:
        """The next event of an answer; without a worker, steps are made here until there is one."""
        while self._worker is None and answer.events.empty():
            self.step()
        return answer.events.get()

    def _check_open(self) -> None:
        if self._closed:
            raise SessionError("the engine is closed; make a new one")

    def _enqueue(self) -> Answer:
        """A place in the queue."""
        with self._lock:
            self._check_open()
            if self._queued >= self.limits.waiting:
                wait = self.estimate()
                raise BusyError(f"{self._queued} requests wait already; try again in {wait:.0f} s", wait)
            self._queued += 1
            return Answer(self, next(self._numbers))

    def _post(self, message: Callable[[], object]) -> None:
        self.inbox.put(message)
        self._wake.set()

    # ------------------------------------------------------------ the worker

    def forget(self, count: int) -> None:
        with self._lock:
            self._queued -= count

    def rested(self) -> None:
        """The ledger must read zero when nobody is here. Counted and logged, never raised."""
        if self.seats or self.waiting or self._queued or self._talks:
            return
        if not (ledger := self.ledger()).idle:
            self.faults += 1
            log.error("the engine is idle and its ledger is not: %s", ledger)

    def _close_talk(self, number: int) -> None:
        if number in self.seats:
            with self._lock:
                self._talks -= 1
            self.close_talk(number)

    def work(self) -> float | None:
        """One step on the worker; returns how long it may sleep then, in seconds. None: until it is woken."""
        try:
            if self._closed or self.step() or not self.inbox.empty():
                return 0.0
        except Exception as error:  # the worker must not die in silence: everybody is told
            log.exception("the engine's worker failed")
            with self._lock:
                self._closed = True
            self._abandon(SessionError(f"the engine failed: {type(error).__name__}: {error}; load the model again"))
            self._stop.set()
            return 0.0
        # nothing to do: nobody asks, or nobody takes what is made
        return None if all(seat.listens for seat in self.seats.values()) else PATIENCE

    def _abandon(self, why: SessionError) -> None:
        """End every answer, served or waiting, with the same error."""
        self.listen()
        told = [reader for seat in self.seats.values() if (reader := seat.reader) is not None]
        told += [reader for asked in self.waiting.values() if (reader := asked.answer()) is not None]
        self.forget(len(self.waiting))
        self.waiting.clear()
        for seat in list(self.seats.values()):
            if seat.talk is None:
                self._leave(seat, Phase.CANCELLED)
            else:
                self._close_talk(seat.number)
        for reader in told:
            reader.put(why)
            reader.put(None)


def serve(engine: weakref.ref[Engine], stop: threading.Event, wake: threading.Event, threads: int) -> None:
    """The worker: steps until it is told to stop, or nobody holds the engine any more."""
    torch.set_num_threads(threads)
    while not stop.is_set():
        wake.clear()
        here = engine()
        rest = here.work() if here is not None else 0.0
        here = None  # asleep, it holds nothing
        if rest != 0.0:
            wake.wait(rest)


def halt(stop: threading.Event, wake: threading.Event, worker: threading.Thread) -> None:
    """End a worker, from wherever the engine was let go."""
    stop.set()
    wake.set()
    if worker is not threading.current_thread():
        worker.join()
