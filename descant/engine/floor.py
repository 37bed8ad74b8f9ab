"""The worker's side of the engine: seats, stores and the queue, and the step. One thread at a time, and no locks."""

from __future__ import annotations

import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from descant.engine.answer import Answer
from descant.engine.limits import Limits, Promise
from descant.engine.loop import decode, fenced, read, settle, take, talk, think
from descant.engine.scheduler import Plan, plan
from descant.engine.seat import Asked, Seat
from descant.engine.session import Models, Phase, Session, finished, new_stores, session_in
from descant.engine.talk import Talk
from descant.errors import BusyError, SessionError
from descant.tokens import PromptTokens
from descant.types import Progress

log = logging.getLogger(__name__)
GONE = "the live session was closed; open another"
CANCELLED = "the answer was cancelled by its number; ask again"


class Floor:
    """Who is served and who waits. What other threads say comes through ``inbox``, as something to be done."""

    def __init__(self, models: Models, limits: Limits):
        self.models, self.limits = models, limits
        self.stores = new_stores(models, limits.tokens, limits.rows, limits.page)
        self.seats: dict[int, Seat] = {}
        self.waiting: dict[int, Asked] = {}  # by the answer's number, in the order of asking
        self.inbox: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self.took: deque[float] = deque([0.0], maxlen=32)  # seconds of the last answers

    def step(self) -> bool:
        """One step of everything. Returns whether there was anything to do."""
        self.listen()
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

    def listen(self) -> None:
        """Do what was said since the last step. Words about what is gone are dropped."""
        while not self.inbox.empty():
            self.inbox.get()()

    def forget(self, count: int) -> None:
        """So many requests have left the queue."""
        raise NotImplementedError

    def parted(self) -> None:
        """A live session is over."""
        raise NotImplementedError

    def rested(self) -> None:
        """Somebody has left."""
        raise NotImplementedError

    # ------------------------------------------------------------ room

    def promised(self, but: Seat | None = None, *, answering: bool = False) -> Promise:
        """What the seats were promised, together; only those that answer, if so asked."""
        others = [seat for seat in list(self.seats.values()) if seat is not but]
        promised = [seat.promised for seat in others if not (answering and seat.listens)]
        return sum(thinker for thinker, _ in promised), sum(talker for _, talker in promised)

    def fits(self, promise: Promise, beside: Promise = (0, 0)) -> bool:
        """Whether the stores can keep a promise beside those that were given."""
        talker = self.stores.talker.limit if self.stores.talker else 0
        return promise[0] + beside[0] <= self.stores.thinker.limit and promise[1] + beside[1] <= talker

    def _grow(self, seat: Seat) -> None:
        """A listening seat is promised its rows, if there is room: without, its user is read when an answer is due."""
        if not seat.listens:
            return
        context = seat.session.context
        rows = len(context.tokens)
        wanted = self.limits.pages(rows, rows if context.talker_kv is not None else 0)
        seat.granted = self.fits(wanted, self.promised(but=seat))
        held = len(context.thinker_kv.pages), len(context.talker_kv.pages) if context.talker_kv is not None else 0
        seat.promised = wanted if seat.granted else held

    def _make_room(self, asked: Asked) -> bool:
        """Whether a promise can be kept; who only listens gives up its pages for it, and is read again later."""
        own = self.seats.get(asked.seat)
        if not self.fits(asked.promise, self.promised(but=own, answering=True)):
            return False  # and nobody gave up anything in vain
        while not self.fits(asked.promise, self.promised(but=own)):
            others = [s for s in self.seats.values() if s.listens and s is not own and any(s.promised)]
            idlest = min(others, key=lambda seat: seat.touched)
            idlest.session.context.free()
            idlest.promised, idlest.granted = (0, 0), False
        return True

    # ------------------------------------------------------------ coming and going

    def _admit(self) -> None:
        """Give seats, in the order of asking, while there is room for all that an answer may come to need."""
        busy = sum(not seat.listens for seat in self.seats.values())
        for number, asked in list(self.waiting.items()):
            if busy >= self.limits.sessions or not self._make_room(asked):
                break
            del self.waiting[number]
            self.forget(1)
            self._seat(number, asked)
            busy += 1
        for place, asked in enumerate(self.waiting.values()):
            if asked.place != place:
                asked.place = place
                waited = time.perf_counter() - asked.request.clock
                asked.tell(Progress("queued", place, len(self.waiting), waited))

    def _seat(self, number: int, asked: Asked) -> None:
        if asked.session is not None:
            seat = self.seats[number] = Seat(number, asked.session, asked.promise)
        else:
            seat = self.seats[asked.seat]
            assert seat.talk is not None
            seat.session = session_in(self.models, asked.request, seat.talk.context, asked.codec)
            seat.session.kept = []
        seat.answer, seat.asked, seat.promised, seat.granted = asked.answer, number, asked.promise, True
        seat.session.spent["queue"] = seat.session.now()

    def enter_queue(self, number: int, asked: Asked) -> None:
        self.waiting[number] = asked

    def cancel_answer(self, number: int, why: SessionError | None = None) -> None:
        """An answer is not wanted any more. why: what its reader is told, unless it was the reader who said so."""
        told = list[Answer | None]()
        if number in self.waiting:
            asked = self.waiting.pop(number)
            told.append(asked.answer())
            self.forget(1)
            if asked.session is None:
                self.with_talk(asked.seat, Talk.withdraw)
        for seat in [seat for seat in self.seats.values() if seat.asked == number and not seat.listens]:
            told.append(seat.reader)
            self._leave(seat, Phase.CANCELLED)
        for reader in told:
            if reader is not None:
                reader.fail(why or SessionError(CANCELLED))

    def open_talk(self, number: int, made: Talk) -> None:
        seat = self.seats[number] = Seat(number, made.listen(), (0, 0), talk=made, touched=time.perf_counter())
        made.lay()
        self._grow(seat)

    def with_talk(self, number: int, act: Callable[[Talk], None]) -> None:
        """Do something to a live session, if it is still there."""
        seat = self.seats.get(number)
        if seat is not None and seat.talk is not None:
            talk = seat.talk
            fenced([[seat.session]], lambda _: act(talk))
            seat.touched = time.perf_counter()
            self._grow(seat)

    def ask_talk(self, number: int, turn: PromptTokens, asked: Asked) -> None:
        """A turn is complete: into the queue, or refused."""
        seat = self.seats.get(asked.seat)
        if seat is None or seat.talk is None:
            self.forget(1)
            asked.tell(SessionError(GONE), None)
            return
        try:
            dropped = seat.talk.ask(number, turn, asked.request.text.max_tokens)
            rows = len(seat.talk.context.tokens)
            spoken = rows + 1 + asked.request.speech.max_tokens if asked.codec is not None else 0
            asked.promise = self.limits.pages(rows + asked.request.text.max_tokens, spoken)
            if not self.fits(asked.promise):
                seat.talk.refused()
                raise BusyError(f"a conversation of {rows} tokens cannot fit this engine; lower max_tokens")
        except SessionError as error:
            self.forget(1)
            asked.tell(error, None)
        else:
            self.waiting[number] = asked
            if dropped:
                turns = dropped + len(seat.talk.replies)
                asked.tell(Progress("dropped", dropped, turns, time.perf_counter() - asked.request.clock))
        seat.touched = time.perf_counter()
        self._grow(seat)

    def close_talk(self, number: int, why: SessionError | None = None) -> None:
        """A live session is over: what it asked is cancelled, what it holds is free. why: what its reader is told."""
        seat = self.seats.get(number)
        if seat is None or seat.talk is None:
            return
        why = why or SessionError(GONE)
        for waiting in [n for n, one in self.waiting.items() if one.seat == number]:
            self.cancel_answer(waiting, why)
        reader = seat.reader
        if not seat.listens:
            self._leave(seat, Phase.CANCELLED)
        seat.talk.context.free()
        del self.seats[number]
        self.parted()
        self.rested()
        if reader is not None:
            reader.fail(why)

    # ------------------------------------------------------------ the stages

    def _parked(self, seat: Seat) -> bool:
        """A reader who takes nothing is not written for any more."""
        return seat.reader is not None and seat.reader.events.qsize() > self.limits.unread

    def _serve(self, todo: Plan) -> None:
        if todo.prefill is not None:
            name, tokens = todo.prefill
            self._clocked("read", (name,), lambda chosen: fenced([chosen], partial(self._read, tokens)))
        self._clocked("think", todo.think, lambda chosen: think(self.models, chosen))
        self._clocked("talk", todo.talk, lambda chosen: talk(self.models, chosen))
        self._clocked("decode", todo.decode, lambda chosen: decode(self.models, chosen))

    def _clocked(self, stage: str, ids: tuple[str, ...], act: Callable[[Sequence[Session]], None]) -> None:
        """One stage, and how long each of its sessions was in it."""
        if not ids:
            return
        chosen, begin = [self.seats[int(i)].session for i in ids], time.perf_counter()
        act(chosen)
        took = time.perf_counter() - begin
        for session in chosen:
            session.spent[stage] = session.spent.get(stage, 0.0) + took

    def _read(self, tokens: int, group: Sequence[Session]) -> None:
        session = group[0]
        read(self.models, session, tokens)
        if session.phase is Phase.PREFILL:
            total = len(session.context.tokens)
            session.out.append(Progress("reading", session.context.thinker_kv.length, total, session.now()))

    def _emit(self, seat: Seat) -> None:
        """Hand over what is new; let go of whoever is done."""
        session, reader = seat.session, seat.reader
        if seat.listens:
            if session.ended:  # what was said could not be read; the answer to it will say why, if it fails again
                session.context.free()
                seat.session, seat.granted = session if seat.talk is None else seat.talk.listen(), False
            return
        settle(session)
        if reader is None or reader.cancelled.is_set():
            self._leave(seat, Phase.CANCELLED)
            return
        for event in take(session):
            seat.hand(event)
        if session.ended:
            reader.put(session.error or finished(session))
            self._leave(seat, session.phase)
            reader.put(None)

    def _leave(self, seat: Seat, phase: Phase) -> None:
        """The answer in a seat has ended; a live session stays, and listens."""
        session = seat.session
        if not session.ended:
            session.enter(phase)
        self.took.append(session.now())
        if seat.talk is None:
            del self.seats[seat.number]
            self.rested()
            return
        seat.answer, seat.asked = None, 0
        seat.talk.answered(session)
        seat.session = seat.talk.listen()
        self._grow(seat)
