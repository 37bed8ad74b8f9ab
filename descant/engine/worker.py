"""The engine's worker: slots, the queue, and the step. One thread, and no locks: others post messages.

step = receive -> admit -> plan -> read -> think -> talk -> tell -> settle -> decode -> deliver
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

import torch

from descant.engine.answer import Answer
from descant.engine.boundary import as_session_error, attempt, each
from descant.engine.conversation import Conversation
from descant.engine.emit import write_text
from descant.engine.graphs import StepMode
from descant.engine.limits import Limits
from descant.engine.messages import (
    Arrange,
    Ask,
    CancelAnswer,
    CloseSession,
    Drain,
    OpenSession,
    RunTrace,
    SessionMail,
    Submit,
    TruncateReply,
    UpdateDraft,
    Wake,
    WorkerMessage,
)
from descant.engine.models import Models, new_stores
from descant.engine.scheduler import StepPlan, plan_step
from descant.engine.session import Phase, Session, finished_event
from descant.engine.slot import PendingRequest, Slot, SlotTable
from descant.engine.stages import Stages
from descant.engine.trace import trace_answer
from descant.errors import DescantError, OptionError, SessionError
from descant.types import Progress

log = logging.getLogger(__name__)
ENGINE_CLOSED = "the engine is closed; make a new one"
SESSION_CLOSED = "the live session was closed; open another"
ANSWER_CANCELLED = "the answer was cancelled by its number; ask again"
PARKED_POLL_S = 0.01  # between two looks at whether a reader takes events again


class EngineWorker:
    """Who is served and who waits. ``inbox`` may be posted to from any thread; all else is the worker's own.

    dequeued, sessions_closed: how many requests left the queue, and how many live sessions are over, since the start;
    other threads only read them. idle_faults: times that nobody was served and something was still lent out.
    """

    def __init__(self, models: Models, limits: Limits, step_mode: StepMode | None = None):
        self.limits = limits
        self.stages = Stages(models, new_stores(models, *limits.store_sizes), step_mode, limits.sessions)
        self.slots = SlotTable(limits, self.stages.stores)
        self.pending: dict[int, PendingRequest] = {}  # by the answer's number, in the order of asking
        self.mail: dict[int, SessionMail] = {}  # by the live session's number
        self.inbox: queue.SimpleQueue[WorkerMessage] = queue.SimpleQueue()
        self.closed = threading.Event()
        self.lock = threading.RLock()  # held by whoever posts what somebody waits for, and by whoever closes
        self.answer_s: deque[float] = deque(maxlen=32)  # seconds that the last answers took
        self.dequeued = self.sessions_closed = self.idle_faults = 0
        self._drained: list[threading.Event] = []  # who wants to know when nothing is left to do

    # ------------------------------------------------------------ the thread

    def run(self, threads: int) -> None:
        """Steps until the engine is closed. Only the inbox wakes the worker while nothing is to be done."""
        try:
            torch.set_num_threads(threads)
            while not self.closed.is_set():
                busy = self.step()
                # None: for ever, as nobody is being answered; else a reader may take events again
                idle_s = None if not self.slots.answering else PARKED_POLL_S
                with suppress(queue.Empty):
                    if not self.closed.is_set():  # asked again: the step may have taken the word of it from the inbox
                        self.handle(self.inbox.get(not busy, idle_s))
            why = SessionError(ENGINE_CLOSED)
        except BaseException as error:  # the worker must not die in silence: everybody is told
            log.exception("the engine's worker failed")
            why = SessionError(f"the engine failed: {type(error).__name__}: {error}; load the model again")
            with self.lock:
                self.closed.set()
        self.abandon(why)

    def abandon(self, why: SessionError) -> None:
        """End every answer, served or waiting, with the same error, and every live session."""
        while not self.inbox.empty():
            message = self.inbox.get()
            if isinstance(message, RunTrace):
                message.result.set_exception(why)
            else:
                self.handle(message)
        told = [slot.answer for slot in self.slots.values() if slot.answer is not None]
        told += [pending.answer for pending in self.pending.values()]
        try:
            self.dequeued += len(self.pending)
            self.pending.clear()
            for slot in list(self.slots.values()):
                if slot.conversation is None:
                    self._leave(slot, Phase.CANCELLED)
                else:
                    self.close_session(slot.number, why)
        finally:  # also when what is broken cannot be tidied up
            for reader in [reader for one in told if (reader := one()) is not None]:
                reader.fail(why)
            for drained in self._drained:
                drained.set()

    def step(self) -> bool:
        """One step of everything. Returns whether there was anything to do."""
        self.receive()
        self._admit()
        now = time.perf_counter()
        views = [slot.view(self.stages, now) for slot in list(self.slots.values()) if not self._parked(slot, now)]
        plan = plan_step(views, self.limits.scheduler)
        self._serve(plan)
        for slot in list(self.slots.values()):
            self._deliver(slot)
        if self._drained and not self.pending and not self.slots.answering:
            for drained in self._drained:
                drained.set()
            self._drained.clear()
        return bool(plan) or not self.inbox.empty()

    # ------------------------------------------------------------ messages

    def receive(self) -> None:
        """Handle the messages that came since the last step, but for so many that answers would wait for them.

        What comes meanwhile waits for the next step: else who posts without a pause would hold this one open.
        """
        for _ in range(min(self.inbox.qsize(), self.limits.scheduler.messages)):
            self.handle(self.inbox.get())

    def handle(self, message: WorkerMessage) -> None:
        """Do what a message says. Messages about what is gone are dropped."""
        match message:
            case Submit(answer, number, request, reservation):
                waiting = PendingRequest(answer, request.settings, request.clock, reservation, request)
                self.pending[number] = waiting
            case CancelAnswer(number):
                self.cancel_answer(number)
            case OpenSession():
                self.open_session(message)
            case UpdateDraft(session, draft):
                with self.lock:
                    tokens, draft.tokens = draft.tokens, None
                if tokens is not None:
                    self._edit(session, lambda conversation: conversation.update_draft(tokens))
            case Ask():
                self.ask(message)
            case Arrange(session, arrangement):
                self._edit(session, lambda conversation: conversation.arrange(arrangement))
            case TruncateReply(session, number, characters):
                self._edit(session, lambda conversation: conversation.truncate_reply(number, characters))
            case CloseSession(session):
                self.close_session(session)
            case RunTrace(request, result):
                error = attempt(lambda: result.set_result(trace_answer(self.stages.models, request)))
                if error is not None:
                    result.set_exception(error)
            case Drain(drained):
                self._drained.append(drained)
            case Wake():
                pass

    def cancel_answer(self, number: int, why: SessionError | None = None) -> None:
        """An answer is not wanted any more. why: what its reader is told, unless it was the reader who said so."""
        readers: list[Answer | None] = []
        if number in self.pending:
            pending = self.pending.pop(number)
            readers.append(pending.answer())
            self.dequeued += 1
            if pending.request is None:
                self._edit(pending.session, Conversation.withdraw)
        for slot in [slot for slot in self.slots.values() if slot.answer_number == number and not slot.listens]:
            readers.append(slot.reader)
            self._leave(slot, Phase.CANCELLED)
        for reader in readers:
            if reader is not None:
                reader.fail(why or SessionError(ANSWER_CANCELLED))

    def open_session(self, message: OpenSession) -> None:
        """Give a live session its slot, where it listens."""
        stages = self.stages
        speech = message.settings.voice is not None
        context = stages.new_context(speech=speech, tenant=message.settings.tenant)
        said = (message.system, *message.around)
        conversation = Conversation(stages.models.tokenizer, context, *said, message.max_tokens, message.drop)
        slot = Slot(message.session, stages.listen_in(context), (0, 0), conversation=conversation)
        slot.touched = time.perf_counter()
        self.slots[message.session] = slot
        conversation.update_tokens()
        self.slots.reserve_for_listening(slot)

    def _edit(self, number: int, act: Callable[[Conversation], None]) -> None:
        """Change the conversation of a live session, if it is still there."""
        slot = self.slots.get(number)
        if slot is not None and (conversation := slot.conversation) is not None:
            each([slot.session], lambda _: act(conversation))
            slot.touched = time.perf_counter()
            self.slots.reserve_for_listening(slot)

    def ask(self, message: Ask) -> None:
        """The turn of a live session is complete: into the queue, or refused."""
        settings = message.settings
        with self.lock:
            if mail := self.mail.get(message.session):
                mail.asks -= 1
        pending = PendingRequest(message.answer, settings, message.clock, (0, 0), session=message.session)
        slot = self.slots.get(message.session)
        if slot is None or slot.conversation is None:
            self.dequeued += 1
            pending.tell(SessionError(SESSION_CLOSED), None)
            return
        conversation = slot.conversation
        try:
            dropped = conversation.ask(message.number, message.turn, settings.text.max_tokens, message.system)
            pending.reservation = self.limits.pages(*conversation.most_tokens(settings))
            if not self.slots.fits(pending.reservation):
                tokens = len(conversation.context.tokens)
                conversation.forget_turn()
                raise OptionError(f"a conversation of {tokens} tokens can never fit this engine; lower max_tokens")
        except DescantError as error:
            self.dequeued += 1
            pending.tell(error, None)
        else:
            self.pending[message.number] = pending
            if dropped:
                of = dropped + conversation.replies
                pending.tell(Progress("dropped", dropped, of, time.perf_counter() - pending.clock))
        slot.touched = time.perf_counter()
        self.slots.reserve_for_listening(slot)

    def close_session(self, number: int, why: SessionError | None = None) -> None:
        """A live session is over: what it asked is cancelled, what it holds is free. why: what its reader is told."""
        slot = self.slots.get(number)
        if slot is None or slot.conversation is None:
            return
        why = why or SessionError(SESSION_CLOSED)
        for answer in [n for n, p in self.pending.items() if p.request is None and p.session == number]:
            self.cancel_answer(answer, why)
        reader = slot.reader
        if not slot.listens:
            self._leave(slot, Phase.CANCELLED)
        slot.conversation.context.free()
        del self.slots[number]
        self.mail.pop(number, None)
        self.sessions_closed += 1
        self._check_idle()
        if reader is not None:
            reader.fail(why)

    def _check_idle(self) -> None:
        """Nothing may be lent out when nobody is here. Counted and logged, never raised."""
        if not self.slots and not (ledger := self.slots.ledger(0, 0)).idle:
            self.idle_faults += 1
            log.error("the engine is idle and its ledger is not: %s", ledger)

    # ------------------------------------------------------------ coming and going

    def _admit(self) -> None:
        """Give slots, in the order of asking, while there is room for all that an answer may come to need."""
        busy = self.slots.answering
        for number, pending in list(self.pending.items()):
            if busy >= self.limits.sessions or not self.slots.make_room(pending):
                break
            del self.pending[number]
            self.dequeued += 1
            error = attempt(partial(self._begin, number, pending))
            if error is None:
                busy += 1
                continue
            if pending.request is None:
                self._edit(pending.session, Conversation.forget_turn)
            pending.tell(as_session_error(error, "queued", str(number)), None)
        for place, pending in enumerate(self.pending.values()):
            if pending.place != place:
                pending.place = place
                pending.tell(Progress("queued", place, len(self.pending), time.perf_counter() - pending.clock))

    def _begin(self, number: int, pending: PendingRequest) -> None:
        """Begin an answer: in a slot of its own, or in that of its live session."""
        if pending.request is not None:
            session = self.stages.open(pending.request)
            slot = self.slots[number] = Slot(number, session, pending.reservation, rest=pending.request.rest)
        else:
            slot = self.slots[pending.session]
            assert slot.conversation is not None
            session = self.stages.answer_in(slot.conversation.context, pending.settings, pending.clock)
            session.reply_states = []
            slot.session = session
        slot.answer = pending.answer
        slot.answer_number = number
        slot.reserved = pending.reservation
        slot.can_read = True
        session.stage_s["queue"] = session.now()

    def _leave(self, slot: Slot, phase: Phase) -> None:
        """The answer in a slot has ended; a live session stays, and listens."""
        session = slot.session
        if not session.ended:
            session.enter(phase)
        self.answer_s.append(session.now())
        if slot.conversation is None:
            del self.slots[slot.number]
            self._check_idle()
            return
        slot.answer = None
        slot.answer_number = 0
        slot.conversation.end_answer(session)
        slot.session = self.stages.listen_in(slot.conversation.context)
        self.slots.reserve_for_listening(slot)

    # ------------------------------------------------------------ the stages

    def _parked(self, slot: Slot, now: float) -> bool:
        """A reader who takes nothing is not written for any more, and after a while its slot serves another."""
        waited, reader = slot.parked_s(now, self.limits.unread), slot.reader
        if waited is not None and waited > self.limits.unread_s and reader is not None:
            self._leave(slot, Phase.CANCELLED)
            reader.fail(SessionError(f"nobody took an event of the answer for {self.limits.unread_s:g} s; ask again"))
        return waited is not None

    def _serve(self, plan: StepPlan) -> None:
        dealt = dict(plan.prefill)
        self._timed("read", tuple(dealt), lambda chosen: self._read(dict(zip(chosen, dealt.values(), strict=True))))
        self._timed("think", plan.think, self.stages.think)
        self._timed("talk", plan.talk, partial(self.stages.talk, codes=plan.codes))
        for slot in self.slots.values():  # while a GPU is still at it
            slot.tell()
        self._timed("talk", plan.talk, self.stages.settle)
        self._timed("think", [number for number in plan.think if number not in plan.talk], self.stages.settle)
        self._timed("decode", plan.decode, self.stages.decode)

    def _timed(self, stage: str, numbers: Sequence[int], act: Callable[[Sequence[Session]], object]) -> None:
        """One stage, and how long each of its sessions was in it."""
        if not numbers:
            return
        chosen = [self.slots[number].session for number in numbers]
        begin = time.perf_counter()
        act(chosen)
        took = time.perf_counter() - begin
        for session in chosen:
            session.stage_s[stage] = session.stage_s.get(stage, 0.0) + took

    def _read(self, rooms: Mapping[Session, int]) -> None:
        self.stages.read(rooms)
        for session in [session for session in rooms if not session.ended]:
            if session.phase is Phase.PREFILL and not session.before.prompt_tokens:
                done = session.context.thinker_kv.length
                session.events.append(Progress("reading", done, len(session.context.tokens), session.now()))

    def _go_on(self, slot: Slot, earlier: Session) -> None:
        """Begin the next part of an answer in the same slot."""
        request, *rest = slot.rest
        slot.rest = tuple(rest)
        session = self.stages.open(request)
        session.go_on_from(earlier)
        write_text(session, request.lead)
        slot.session = session

    def _deliver(self, slot: Slot) -> None:
        """Hand over what is new; let go of whoever is done."""
        session = slot.session
        reader = slot.reader
        if slot.listens:
            if session.ended:  # what was said could not be read; the answer to it will say why, if it fails again
                session.context.free()
                slot.session = self.stages.listen_in(session.context)
                slot.can_read = False
            return
        session.finish_if_done()
        if reader is None or reader.cancelled.is_set():
            self._leave(slot, Phase.CANCELLED)
            return
        slot.tell()
        if session.phase is Phase.DONE and slot.rest:
            error = attempt(partial(self._go_on, slot, session))
            if error is None:
                return
            session.error = as_session_error(error, "reading on", session.id)
        if session.ended:
            reader.put(session.error or finished_event(session))
            self._leave(slot, session.phase)
            reader.put(None)
