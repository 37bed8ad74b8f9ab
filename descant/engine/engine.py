"""Many answers at once: admit -> read -> think -> talk -> decode -> emit, one step after another, on one thread.

Whoever wants an answer submits a request, from any thread, and iterates over the events of its ``Answer``; whoever
talks opens a live session, and is heard before it asks. One worker owns the models; what others say to it waits in an
inbox until the next step begins.
"""

from __future__ import annotations

import logging
import queue
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
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
from descant.tokens import PromptTokens

log = logging.getLogger(__name__)
CLOSED = "the engine is closed; make a new one"
SMALL = 2**25  # parameters; nano has 6 million and takes half as long again with two threads (LOG.md, Many answers)
PATIENCE = 0.01  # seconds between two looks at whether a reader takes events again


class Engine(Floor):
    """One set of models that serves many answers at once. Its own methods may be called from any thread."""

    def __init__(self, models: Models, limits: Limits | None = None):
        super().__init__(models, limits or Limits())
        self.faults = 0  # times that the engine was idle and its ledger was not
        self._threads = self.limits.threads or (1 if small(models) else torch.get_num_threads())
        self._lock = threading.RLock()  # of what came in; what went out is counted by the worker, which needs no lock
        self._asked = self._opened = 0
        self._answered = self._left = 0
        self._busy = False
        self._closed = threading.Event()  # not a plain flag: a finalizer, which cannot hold the engine, sets it too
        self._numbers = count(1)
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
        with self._lock:
            answer = self._enqueue()
            asked = Asked(weakref.ref(answer), request, promise, session)
            self.inbox.put(partial(self.enter_queue, answer.number, asked))
        return answer

    def open(self, request: Request, system: PromptTokens, closing: PromptTokens, *, context: int, drop: bool) -> int:
        """Open a live session; returns its number. request: what its answers have in common; see `Talk`.

        BusyError: too many are open.
        """
        space = new_context(self.stores, speech=request.voice is not None, tenant=request.tenant)
        talk = Talk(self.models, space, request, system, closing, context, drop)
        with self._lock:
            self.check_open()
            if self._talks >= self.limits.talks:
                raise BusyError(f"{self._talks} live sessions are open already; close one")
            self._opened, number = self._opened + 1, next(self._numbers)
            self.inbox.put(partial(self.open_talk, number, talk))
        return number

    def hear(self, number: int, draft: PromptTokens) -> None:
        """The turn that a live session is making, as far as it has come."""
        self.inbox.put(partial(self.with_talk, number, lambda talk: talk.hear(draft)))

    def caught_up(self, number: int) -> bool:
        """Whether all that a live session was told of is read. A look from another thread: it may be old."""
        seat = self.seats.get(number)
        return seat is None or not seat.session.context.unread

    def ask(self, number: int, turn: Callable[[], PromptTokens], request: Request) -> Answer:
        """The turn of a live session is complete: answer it. turn: called once there is a place in the queue.

        BusyError: there is none; and what ``turn`` raises.
        """
        codec = start_codec(self.models, request)
        with self._lock:
            answer = self._enqueue()
        told = False
        try:
            asked = Asked(weakref.ref(answer), request, (0, 0), seat=number, codec=codec)
            message = partial(self.ask_talk, answer.number, turn(), asked)
            with self._lock:
                self.check_open()
                self.inbox.put(message)
                told = True
        finally:
            if not told:
                with self._lock:
                    self._asked -= 1
        return answer

    def cut(self, number: int, answer: int, characters: int) -> None:
        """In a live session, only so many characters of the reply that this answer gave were heard."""
        self.inbox.put(partial(self.with_talk, number, lambda talk: talk.cut(answer, characters)))

    def leave(self, number: int) -> None:
        """A live session is over. Harmless when repeated."""
        self.inbox.put(partial(self.close_talk, number))

    def cancel(self, number: int) -> None:
        """An answer is not wanted any more. Harmless when it has ended."""
        self.inbox.put(partial(self.cancel_answer, number))

    def estimate(self) -> float:
        """Seconds until a request that came now would be served, from how long the last answers took."""
        mean = sum(self.took) / len(self.took)
        return mean * (1 + self._queued / max(1, self.limits.sessions))

    def start(self) -> None:
        """Serve on a thread of its own, until ``close``, or until nobody holds the engine or an answer of it."""
        with self._lock:
            if self._worker is None and not self._closed.is_set():
                told = weakref.ref(self), self.inbox, self._threads
                self._worker = threading.Thread(target=serve, args=told, name="descant-engine", daemon=True)
                weakref.finalize(self, halt, self._closed, self.inbox, self._worker)  # also when the program ends
                self._worker.start()

    def close(self) -> None:
        """Cancel everything and end the worker. Harmless when repeated, and from any thread."""
        with self._lock:
            first, worker = not self._closed.is_set(), self._worker
            self._closed.set()
        if worker is not None:
            halt(self._closed, self.inbox, worker)
        elif first:
            self._abandon(SessionError(CLOSED))

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
        self.stores.thinker.check([context.thinker_kv for context in contexts])
        if self.stores.talker is not None:
            self.stores.talker.check([context.talker_kv for context in contexts if context.talker_kv is not None])

    def next_of(self, answer: Answer) -> Item:
        """The next event of an answer; without a worker, steps are made here until there is one."""
        while self._worker is None and answer.events.empty():
            self.step()
        return answer.events.get()

    def check_open(self) -> None:
        """SessionError when the engine was closed, or has failed."""
        if self._closed.is_set():
            raise SessionError(CLOSED)

    @property
    def _queued(self) -> int:
        """Answers that were asked for and have no seat yet."""
        return self._asked - self._answered

    @property
    def _talks(self) -> int:
        """Live sessions that are open."""
        return self._opened - self._left

    def _enqueue(self) -> Answer:
        """A place in the queue; the lock is held, so that whatever is asked is known to whoever closes the engine."""
        self.check_open()
        if self._queued >= self.limits.waiting:
            wait = self.estimate()
            raise BusyError(f"{self._queued} requests wait already; try again in {wait:.0f} s", wait)
        self._asked += 1
        return Answer(self, next(self._numbers))

    # ------------------------------------------------------------ the worker

    def forget(self, count: int) -> None:
        self._answered += count

    def parted(self) -> None:
        self._left += 1

    def rested(self) -> None:
        """The ledger must read zero when nobody is here. Counted and logged, never raised."""
        ledger = self.ledger()
        if not (self.seats or ledger.waiting or ledger.talks or ledger.idle):
            self.faults += 1
            log.error("the engine is idle and its ledger is not: %s", ledger)

    def work(self, message: Callable[[], object] | None) -> bool:
        """One step on the worker, after a message that it waited for. Returns whether it goes on."""
        why = SessionError(CLOSED)
        try:
            if message is not None:
                message()
            if not self._closed.is_set():
                self._busy = self.step()
            if not self._closed.is_set():  # asked again: the step may have taken the word of it out of the inbox
                return True
        except Exception as error:  # the worker must not die in silence: everybody is told
            log.exception("the engine's worker failed")
            why = SessionError(f"the engine failed: {type(error).__name__}: {error}; load the model again")
        with self._lock:
            self._closed.set()
        self._abandon(why)
        return False

    @property
    def patience(self) -> float | None:
        """Seconds that the worker waits to be spoken to. None: for ever, as nobody is being answered."""
        if self._busy:
            return 0.0
        return None if all(seat.listens for seat in self.seats.values()) else PATIENCE

    def _abandon(self, why: SessionError) -> None:
        """End every answer, served or waiting, with the same error, and every live session."""
        self.listen()
        told = [seat.answer for seat in self.seats.values() if seat.answer is not None]
        told += [asked.answer for asked in self.waiting.values()]
        try:
            self.forget(len(self.waiting))
            self.waiting.clear()
            for seat in list(self.seats.values()):
                if seat.talk is None:
                    self._leave(seat, Phase.CANCELLED)
                else:
                    self.close_talk(seat.number, why)
        finally:  # also when what is broken cannot be tidied up
            for reader in [reader for one in told if (reader := one()) is not None]:
                reader.fail(why)


def small(models: Models) -> bool:
    """Whether the Thinker's products are over before a second thread has begun."""
    return sum(weight.numel() for weight in models.thinker.parameters()) < SMALL


def serve(engine: weakref.ref[Engine], inbox: queue.SimpleQueue[Callable[[], object]], threads: int) -> None:
    """The worker: steps until the engine is closed, or nobody holds it any more. While it waits, it does not either.

    Only the inbox wakes it: finalizers speak to it, in the middle of anything, and its ``put`` is the one call that may
    interrupt itself.
    """
    torch.set_num_threads(threads)
    message = None
    while (here := engine()) is not None and here.work(message):
        patience, here, message = here.patience, None, None
        with suppress(queue.Empty):
            message = inbox.get(patience != 0.0, patience)


def halt(closed: threading.Event, inbox: queue.SimpleQueue[Callable[[], object]], worker: threading.Thread) -> None:
    """Close an engine and wait for the end of its worker, which looks up and sees it closed, or gone."""
    closed.set()  # before the word: a step that is under way may take that out of the inbox
    inbox.put(lambda: None)
    if worker is not threading.current_thread():  # which may come here from a finalizer; it ends after its step
        worker.join()
