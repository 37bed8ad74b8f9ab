"""Many answers at once: admit -> read -> think -> talk -> decode -> emit, one step after another, on one thread.

Whoever wants an answer submits a request, from any thread, and iterates over the events of its ``Answer``. One worker
owns the models; what others say to it (new requests, cancellations) waits in an inbox until the next step begins.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from descant.engine.loop import decode, fenced, has_work, read, settle, take, talk, think
from descant.engine.scheduler import Pace, Plan, Standing, plan
from descant.engine.session import (
    PAGE,
    RATE,
    Models,
    Phase,
    Request,
    Session,
    finished,
    new_stores,
    open_session,
    room,
)
from descant.errors import BusyError, SessionError
from descant.types import AudioChunk, Event

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What an engine holds at most. tokens: of the Thinker's cache; rows: of the Talker's; sessions: answers that are
    being made; waiting: requests in the queue; unread: events that nobody has taken, after which an answer waits."""

    tokens: int = 65536
    rows: int = 65536
    sessions: int = 32
    waiting: int = 64
    unread: int = 4096
    page: int = PAGE
    pace: Pace = field(default_factory=Pace)


@dataclass(frozen=True)
class Ledger:
    """What is lent out. All zero when nobody is served."""

    sessions: int
    waiting: int
    thinker_pages: int
    talker_pages: int
    promised_thinker_pages: int
    promised_talker_pages: int

    @property
    def idle(self) -> bool:
        return not any((self.sessions, self.waiting, self.thinker_pages, self.talker_pages))


class Answer:
    """The events of one request, to be iterated by one reader, on any thread. Dropping it cancels the request."""

    def __init__(self, engine: Engine, number: int):
        self.number = number
        self.cancelled = threading.Event()
        self.events: queue.SimpleQueue[Event | Exception | None] = queue.SimpleQueue()
        self._engine = engine
        self._leave = weakref.finalize(self, engine._cancel, number)
        self._leave.atexit = False

    def __iter__(self) -> Iterator[Event]:
        """Until the answer is finished or cancelled. Raises what made it fail."""
        while not self.cancelled.is_set():
            item = self._engine._next(self)
            if item is None or self.cancelled.is_set():
                return
            if isinstance(item, Exception):
                raise item
            yield item

    def cancel(self) -> None:
        """No event is given any more from here on; what the answer holds is free when the next step begins."""
        self.cancelled.set()
        self._leave()
        self.events.put(None)


@dataclass
class Seat:
    """A session that is being served, and what the scheduler needs to know of its listener."""

    number: int
    session: Session
    answer: weakref.ref[Answer]
    promised: Promise
    began: float = 0.0  # when its first sound went out, seconds
    dry: int = 0  # times that the listener had nothing to hear

    def unplayed(self, now: float) -> float | None:
        """Seconds of sound that a listener who plays in real time has not heard yet; None without speech."""
        speech = self.session.speech
        if speech is None or speech.drained:
            return None
        return max(0.0, speech.samples / RATE - (now - self.began)) if self.session.first_audio else 0.0

    def standing(self, models: Models, now: float) -> Standing:
        session, speech = self.session, self.session.speech
        phase, prompt = session.phase, len(session.request.prompt.ids)
        singing = speech is not None and phase in (Phase.THINKING, Phase.SPEAKING) and not speech.over
        return Standing(
            str(self.number),
            self.number,
            prompt - session.thought.cache.length if phase is Phase.PREFILL else 0,
            thinks=phase is Phase.THINKING,
            talks=singing and bool(speech and (speech.rows or phase is Phase.SPEAKING)),
            decodes=speech is not None and not speech.drained and has_work(models, speech),
            unplayed=self.unplayed(now),
        )


Promise = tuple[int, int]  # pages of the Thinker's store and of the Talker's that an answer may come to need
Asked = tuple[int, Session, weakref.ref[Answer], Promise]


class Engine:
    """One set of models that serves many answers at once."""

    def __init__(self, models: Models, limits: Limits | None = None):
        self.models, self.limits = models, limits or Limits()
        self.stores = new_stores(models, self.limits.tokens, self.limits.rows, self.limits.page)
        self.seats: dict[int, Seat] = {}
        self._waiting: deque[Asked] = deque()
        self._inbox: queue.SimpleQueue[tuple[int, Asked | None]] = queue.SimpleQueue()  # None: it is cancelled
        self._lock = threading.Lock()  # of the two lines below, which every thread may read
        self._queued, self._number = 0, 0
        self._wake = threading.Event()
        self._worker: threading.Thread | None = None
        self._closed = False
        self._took: deque[float] = deque([0.0], maxlen=32)  # seconds of the last answers

    # ------------------------------------------------------------ from any thread

    def submit(self, request: Request) -> Answer:
        """Ask for an answer; what is wrong with the request is found here, on the thread that asks.

        OptionError: it is impossible. BusyError: the queue is full, or it could never fit.
        """
        tokens, rows = room(request)
        promise = (-(-tokens // self.limits.page), -(-rows // self.limits.page))
        session = open_session(self.models, request, self.stores)
        if not self._fits(promise):
            raise BusyError(
                f"a request of up to {tokens} tokens and {rows} rows of speech cannot fit an engine of "
                f"{self.limits.tokens} and {self.limits.rows}; shorten it, or lower max_tokens"
            )
        with self._lock:
            if self._closed:
                raise SessionError("the engine is closed; make a new one")
            if self._queued >= self.limits.waiting:
                wait = self.estimate()
                raise BusyError(f"{self._queued} requests wait already; try again in {wait:.0f} s", wait)
            self._queued, self._number = self._queued + 1, self._number + 1
            answer = Answer(self, self._number)
        self._inbox.put((answer.number, (answer.number, session, weakref.ref(answer), promise)))
        self._wake.set()
        return answer

    def estimate(self) -> float:
        """Seconds until a request that came now would be served, from how long the last answers took."""
        mean = sum(self._took) / len(self._took)
        return mean * (1 + self._queued / max(1, self.limits.sessions))

    def start(self) -> None:
        """Serve on a thread of its own, until ``close``."""
        if self._worker is None:
            self._worker = threading.Thread(target=self._work, name="descant-engine", daemon=True)
            self._worker.start()

    def close(self) -> None:
        """Cancel everything and end the worker."""
        with self._lock:
            self._closed = True
        self._wake.set()
        if self._worker is not None and self._worker is not threading.current_thread():
            self._worker.join()
        self._abandon(SessionError("the engine was closed"))

    def ledger(self) -> Ledger:
        """What is lent out now."""
        return Ledger(
            len(self.seats),
            self._queued,
            self.stores.thinker.used,
            self.stores.talker.used if self.stores.talker else 0,
            *self._promised(),
        )

    def _promised(self) -> Promise:
        """What the seats were promised, together."""
        promised = [seat.promised for seat in list(self.seats.values())]
        return sum(thinker for thinker, _ in promised), sum(talker for _, talker in promised)

    def _fits(self, promise: Promise, beside: Promise = (0, 0)) -> bool:
        """Whether the stores can keep a promise beside those that were given."""
        talker = self.stores.talker.limit if self.stores.talker else 0
        return promise[0] + beside[0] <= self.stores.thinker.limit and promise[1] + beside[1] <= talker

    def _cancel(self, number: int) -> None:
        self._inbox.put((number, None))
        self._wake.set()

    def _next(self, answer: Answer) -> Event | Exception | None:
        """The next event of an answer; without a worker, steps are made here until there is one."""
        while self._worker is None and answer.events.empty():
            self.step()
        return answer.events.get()

    # ------------------------------------------------------------ on the worker

    def step(self) -> bool:
        """One step of everything. Returns whether there was anything to do."""
        self._listen()
        self._admit()
        now = time.perf_counter()
        todo = plan(
            [seat.standing(self.models, now) for seat in self.seats.values() if not self._parked(seat)],
            self.limits.pace,
        )
        self._serve(todo)
        for seat in list(self.seats.values()):
            self._emit(seat)
        return bool(todo)

    def _listen(self) -> None:
        """Take what was said since the last step. Words about an answer that is gone are dropped."""
        while not self._inbox.empty():
            number, asked = self._inbox.get()
            if asked is not None:
                self._waiting.append(asked)
            elif number in self.seats:
                self._leave(self.seats[number], Phase.CANCELLED)
            else:
                kept = [entry for entry in self._waiting if entry[0] != number]
                self._forget(len(self._waiting) - len(kept))
                self._waiting = deque(kept)

    def _forget(self, count: int) -> None:
        with self._lock:
            self._queued -= count

    def _admit(self) -> None:
        """Give seats, in the order of asking, while there is room for all that an answer may come to need."""
        while self._waiting and len(self.seats) < self.limits.sessions:
            number, session, answer, promise = self._waiting[0]
            if not self._fits(promise, self._promised()):
                return
            self._waiting.popleft()
            self._forget(1)
            self.seats[number] = Seat(number, session, answer, promise)

    def _parked(self, seat: Seat) -> bool:
        """A reader who takes nothing is not written for any more."""
        reader = seat.answer()
        return reader is not None and reader.events.qsize() > self.limits.unread

    def _serve(self, todo: Plan) -> None:
        def chosen(ids: tuple[str, ...]) -> list[Session]:
            return [self.seats[int(i)].session for i in ids]

        if todo.prefill is not None:
            name, tokens = todo.prefill
            fenced([chosen((name,))], lambda group: read(self.models, group[0], tokens))
        think(self.models, chosen(todo.think))
        talk(self.models, chosen(todo.talk))
        decode(self.models, chosen(todo.decode))

    def _emit(self, seat: Seat) -> None:
        """Hand over what is new; let go of whoever is done."""
        session, reader = seat.session, seat.answer()
        settle(session)
        if reader is None or reader.cancelled.is_set():
            self._leave(seat, Phase.CANCELLED)
            return
        for event in take(session):
            self._count(seat, event)
            reader.events.put(event)
        if session.ended:
            reader.events.put(session.error or finished(session))
            reader.events.put(None)
            self._leave(seat, session.phase)

    def _count(self, seat: Seat, event: Event) -> None:
        """Keep the listener's clock: when sound began, and how often there was none left."""
        if not isinstance(event, AudioChunk):
            return
        now, heard = time.perf_counter(), event.start_sample / RATE
        if event.start_sample == 0:
            seat.began = now
        elif now - seat.began > heard:
            seat.dry += 1
            seat.began = now - heard

    def _leave(self, seat: Seat, phase: Phase) -> None:
        if not seat.session.ended:
            seat.session.enter(phase)
        self._took.append(seat.session.now())
        del self.seats[seat.number]
        if not self.seats and not self.ledger().idle and not self._waiting and self._inbox.empty():
            log.error("the engine is idle and its ledger is not: %s", self.ledger())

    def _work(self) -> None:
        try:
            while not self._closed:
                self._wake.clear()
                if not self.step() and not self.seats and self._inbox.empty():
                    self._wake.wait()
        except Exception as error:  # the worker must not die in silence: everybody is told
            log.exception("the engine's worker failed")
            with self._lock:
                self._closed = True
            self._abandon(SessionError(f"the engine failed: {type(error).__name__}: {error}; load the model again"))

    def _abandon(self, why: SessionError) -> None:
        """End every answer, served or waiting, with the same error."""
        self._listen()
        for _, _, answer, _ in self._waiting:
            if (reader := answer()) is not None:
                reader.events.put(why)
        self._forget(len(self._waiting))
        self._waiting.clear()
        for seat in list(self.seats.values()):
            if (reader := seat.answer()) is not None:
                reader.events.put(why)
            self._leave(seat, Phase.CANCELLED)
