"""The engine's door: many answers at once, from any thread. The work is its worker's, on a thread of its own.

Whoever wants an answer submits a request and iterates over the events of its ``Answer``; whoever talks opens a live
session, and is heard before it asks. What is wrong with a request is found here, on the thread that asks.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from itertools import count
from statistics import mean

import torch
from torch import Tensor

from descant.engine.answer import Answer
from descant.engine.conversation import Arrangement, Entry
from descant.engine.graphs import StepMode
from descant.engine.limits import Ledger, Limits, fitted, most_tokens
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
)
from descant.engine.models import Models, prefers_one_thread
from descant.engine.regions import DueWindow, stream_windows, window_batches
from descant.engine.session import AnswerSettings, Request
from descant.engine.stages import NO_VOICE
from descant.engine.worker import ENGINE_CLOSED, EngineWorker
from descant.errors import BusyError, OptionError, SessionError
from descant.nn.kernels import kernel_faults
from descant.tokens import PromptTokens

GIVE_WAY_S = 0.001
DRAINING = "the engine is draining: it ends what it has begun and takes nothing new; ask another one"


class Engine:
    """One set of models that serves many answers at once. Its methods may be called from any thread."""

    def __init__(self, models: Models, limits: Limits | None = None, step_mode: StepMode | None = None):
        self.models = models
        self.limits = limits or Limits()
        self.worker = EngineWorker(models, self.limits, step_mode)
        self._threads = self.limits.threads or (1 if prefers_one_thread(models) else torch.get_num_threads())
        self._lock = self.worker.lock  # of what came in; what went out is counted by the worker, which needs no lock
        self._asked = self._opened = 0
        self._draining = False
        self._numbers = count(1)
        self._thread: threading.Thread | None = None
        self._process: int | None = None  # that has the thread

    # ------------------------------------------------------------ answers

    def submit(self, request: Request) -> Answer:
        """Ask for an answer.

        It ends where the model's context does. OptionError: it is impossible, or could never fit. BusyError: the queue
        is full. SessionError: closed.
        """
        self.check_process()
        self._check_settings(request.settings)
        request = replace(self._fitted(request), rest=tuple(self._fitted(part) for part in request.rest))
        tokens, talker_tokens = map(max, zip(*map(most_tokens, (request, *request.rest)), strict=True))
        reservation = self.limits.pages(tokens, talker_tokens)
        if not self.worker.slots.fits(reservation):
            raise OptionError(
                f"a request of up to {tokens} tokens and {talker_tokens} of speech can never fit an engine of "
                f"{self.limits.tokens} and {self.limits.talker_tokens}; shorten it, or lower max_tokens"
            )
        for part in (request, *request.rest):
            part.prompt.hash_media()  # here, for the worker must not wait for it
        with self._lock:
            answer = self._enqueue()
            self.worker.inbox.put(Submit(weakref.ref(answer), answer.number, request, reservation))
        return answer

    def cancel(self, number: int) -> None:
        """Cancel an answer. Harmless when it has ended."""
        self.worker.inbox.put(CancelAnswer(number))

    def trace(self, request: Request) -> dict[str, Tensor]:
        """Make a deterministic pass on the worker, written down; see ``engine.trace``. Others wait meanwhile."""
        self.check_process()
        self._check_settings(request.settings)
        request = self._fitted(request)
        result: Future[dict[str, Tensor]] = Future()
        self.start()
        with self._lock:
            self.check_open()
            self.worker.inbox.put(RunTrace(request, result))
        return result.result()

    # ------------------------------------------------------------ live sessions

    def open(
        self,
        settings: AnswerSettings,
        system: PromptTokens,
        around: tuple[PromptTokens, PromptTokens],
        *,
        max_tokens: int,
        drop: bool,
    ) -> int:
        """Open a live session; returns its number. settings: of its answers; around: opening and closing of a reply;
        for the rest see ``OpenSession``.

        BusyError: too many are open.
        """
        self.check_process()
        self._check_settings(settings)
        with self._lock:
            self._check_admission()
            if self._live_sessions >= self.limits.live_sessions:
                raise BusyError(f"{self._live_sessions} live sessions are open already; close one")
            self._opened = self._opened + 1
            number = next(self._numbers)
            self.worker.mail[number] = SessionMail()
            self.worker.inbox.put(OpenSession(number, settings, system, around, max_tokens, drop))
        return number

    def update_draft(self, session: int, draft: PromptTokens) -> None:
        """Say how far the turn that a live session is making has come. The worker sees the last of many drafts."""
        draft.hash_media()
        with self._lock:
            mail = self.worker.mail.get(session)
            if mail is None:
                return
            if mail.draft.tokens is None:
                self.worker.inbox.put(UpdateDraft(session, mail.draft))
            mail.draft.tokens = draft

    def is_caught_up(self, session: int) -> bool:
        """True if all that a live session was told of is read. A look from another thread: it may be old."""
        slot = self.worker.slots.get(session)
        return slot is None or not slot.session.context.unread

    def ask(
        self,
        session: int,
        turn: Callable[[], Entry] | None,
        settings: AnswerSettings,
        clock: float,
        system: PromptTokens | None = None,
    ) -> Answer:
        """Answer the turn of a live session, which is complete since ``clock``. turn: called once there is a place in
        the queue (None: nothing was said anew); system: the system turn of this answer alone.

        BusyError: there is none, or too many of this session's turns wait to be seen; and what ``turn`` raises.
        """
        self.check_process()
        self._check_settings(settings)
        with self._lock:
            mail = self.worker.mail.get(session)
            if mail is not None and mail.asks >= self.limits.asks:
                raise BusyError(f"{mail.asks} turns of this session wait to be seen; respond again a moment later")
            answer = self._enqueue()
        posted = False
        try:
            said = None if turn is None else turn()
            message = Ask(session, weakref.ref(answer), answer.number, said, settings, clock, system)
            with self._lock:
                self.check_open()
                self.worker.inbox.put(message)
                posted = True
                if mail is not None:
                    if said is not None:
                        mail.drop_draft()
                    mail.asks += 1
        finally:
            if not posted:
                with self._lock:
                    self._asked -= 1
        return answer

    def entry(self, tokens: PromptTokens) -> Entry:
        """A message for a conversation, under a new key."""
        tokens.hash_media()
        return Entry(next(self._numbers), tokens)

    def arrange(self, session: int, new: Arrangement) -> None:
        """Change what a live session has said so far."""
        with self._lock:
            mail = self.worker.mail.get(session)
            if new.commits and mail is not None:
                mail.drop_draft()
            self.worker.inbox.put(Arrange(session, new))

    def truncate_reply(self, session: int, answer: int, characters: int) -> None:
        """Truncate the reply that ``answer`` gave in a live session to its first ``characters``."""
        self.worker.inbox.put(TruncateReply(session, answer, characters))

    def close_session(self, session: int) -> None:
        """Close a live session. Harmless when repeated."""
        self.worker.inbox.put(CloseSession(session))

    # ------------------------------------------------------------ the whole

    def start(self) -> None:
        """Serve on a thread of its own, until ``close``, or until nobody holds the engine or an answer of it.

        SessionError: the system gives no thread; later it may.
        """
        self.check_process()
        with self._lock:
            if self._thread is not None or self.worker.closed.is_set():
                return
            thread = threading.Thread(target=self.worker.run, args=(self._threads,), name="descant-engine", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise SessionError(f"the engine cannot start: {error}. End other programs, then ask again") from None
            self._process = os.getpid()
            self._thread = thread
            THREADS[thread] = weakref.ref(self.worker)
            weakref.finalize(self, halt, self.worker, thread)

    def warm_up(self, settings: AnswerSettings | None = None) -> Iterator[int]:
        """Make, before the engine starts, the decode steps that answers will need, and the codec's windows of those
        with these settings (None: no windows); yields how many are left. Nothing where steps are not replayed as
        graphs."""
        if self._thread is not None:
            raise RuntimeError("the engine has started: its steps belong to its thread")
        stages, sessions = self.worker.stages, self.limits.sessions
        windows: list[tuple[DueWindow, int]] = []
        if stages.regions.mode == "graphs" and settings is not None and settings.voice is not None:
            due = stream_windows(stages.token2wav, settings.voice, settings.decoding)
            windows = window_batches(due, min(sessions, self.limits.scheduler.decode_batch))
        for left in stages.steps.warm_up(stages.stores.thinker, stages.stores.talker, sessions):
            yield left + len(windows)
        if windows:
            yield from stages.regions.warm_up(stages.token2wav, windows)

    def check_process(self) -> None:
        """SessionError in a forked child of the process in which the engine works: its thread is not there."""
        if self._process not in (None, os.getpid()):
            raise SessionError(
                "this process was forked from one whose engine was at work already; load the model here, "
                "after the fork, or start workers by 'spawn'"
            )

    def drain(self, timeout_s: float | None = None) -> bool:
        """Take nothing new, and wait until all that was asked is answered; then ``close`` cuts nobody off.

        Returns False if that took longer than ``timeout_s`` (None: wait for ever). Live sessions stay open, and cannot
        ask any more.
        """
        self.start()
        drained = threading.Event()
        with self._lock:
            self._draining = True
            if self.worker.closed.is_set():
                return True
            self.worker.inbox.put(Drain(drained))
        return drained.wait(timeout_s)

    def close(self) -> None:
        """Cancel everything and end the worker. Harmless when repeated, and from any thread."""
        with self._lock:
            first = not self.worker.closed.is_set()
            thread = self._thread
            self.worker.closed.set()
        if thread is not None:
            halt(self.worker, thread)
        elif first:
            self.worker.abandon(SessionError(ENGINE_CLOSED))

    def give_way(self) -> None:
        """Let the worker run, if anybody is being answered. A Python thread that calls without a pause would hold the
        interpreter's lock against it: each operation of a step waits for that lock again."""
        if self.worker.slots.answering or self._queued:
            time.sleep(GIVE_WAY_S)

    def estimate_s(self) -> float | None:
        """Seconds until a request that came now would be served, from how long the last answers took (None: none
        did)."""
        took = list(self.worker.answer_s)
        return mean(took) * (1 + self._queued / self.limits.sessions) if took else None

    def ledger(self) -> Ledger:
        """The ledger of what is lent out now."""
        ledger = self.worker.slots.ledger(self._live_sessions, self._queued)
        steps = self.worker.stages.steps
        rows = steps.thinker.draws.lent + steps.talker.draws.lent
        return replace(ledger, draw_rows=rows, eager_buckets=len(self.step_faults))

    @property
    def step_faults(self) -> tuple[str, ...]:
        """The decode steps and codec windows that were to be static and are eager, and the kernels that torch stands
        in for, and why, one line each. May be read by any thread."""
        stages = self.worker.stages
        codec = tuple(f"codec: {reason}" for reason in list(stages.regions.eager.values()))
        return stages.steps.faults + codec + kernel_faults()

    def check_open(self) -> None:
        """SessionError when the engine was closed, or has failed."""
        if self.worker.closed.is_set():
            raise SessionError(ENGINE_CLOSED)

    # ------------------------------------------------------------ inside

    @property
    def _queued(self) -> int:
        """Answers that were asked for and have no slot yet."""
        return self._asked - self.worker.dequeued

    @property
    def _live_sessions(self) -> int:
        """Live sessions that are open."""
        return self._opened - self.worker.sessions_closed

    def _check_admission(self) -> None:
        self.check_open()
        if self._draining:
            raise SessionError(DRAINING)

    def _check_settings(self, settings: AnswerSettings) -> None:
        """Refuse what the models cannot do."""
        if settings.voice is not None and (self.models.talker is None or self.models.token2wav is None):
            raise OptionError(NO_VOICE)

    def _fitted(self, request: Request) -> Request:
        """The request, ended by the contexts of the models."""
        context = self.models.thinker.cfg.text.max_position_embeddings
        talker = self.models.talker
        return fitted(request, context, context if talker is None else talker.cfg.decoder.max_position_embeddings)

    def _enqueue(self) -> Answer:
        """A place in the queue; the lock is held, so that whatever is asked is known to whoever closes the engine."""
        self._check_admission()
        if self._queued >= self.limits.waiting:
            wait = self.estimate_s()
            when = "later" if wait is None else f"in {max(1, round(wait))} s"
            raise BusyError(f"{self._queued} requests wait already; try again {when}", wait)
        self._asked += 1
        return Answer(self, next(self._numbers))


THREADS: weakref.WeakKeyDictionary[threading.Thread, weakref.ref[EngineWorker]] = weakref.WeakKeyDictionary()


@atexit.register
def halt_all() -> None:
    """Wait for every worker before the interpreter goes: a thread that computes while it does ends the process by
    SIGABRT. An engine may have ended on its own worker's thread, where nobody could wait for it."""
    for thread, reference in list(THREADS.items()):
        worker = reference()
        if worker is not None and thread.is_alive():  # in a forked child no other thread is
            halt(worker, thread)
        elif thread is not threading.current_thread():
            thread.join()


def halt(worker: EngineWorker, thread: threading.Thread) -> None:
    """Close an engine and wait for the end of its worker, which looks up and sees it closed."""
    worker.closed.set()  # before the word: a step that is under way may take that out of the inbox
    worker.inbox.put(Wake())
    if thread is not threading.current_thread():  # which may come here from a finalizer; it ends after its step
        thread.join()
