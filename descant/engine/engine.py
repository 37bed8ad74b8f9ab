"""The engine's door: many answers at once, from any thread. The work is its worker's, on a thread of its own.

Whoever wants an answer submits a request and iterates over the events of its ``Answer``; whoever talks opens a live
session, and is heard before it asks. What is wrong with a request is found here, on the thread that asks.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from itertools import count

import torch
from torch import Tensor

from descant.engine.answer import Answer
from descant.engine.graphs import StepMode
from descant.engine.limits import Ledger, Limits, most_tokens
from descant.engine.messages import (
    Ask,
    CancelAnswer,
    CloseSession,
    Drain,
    OpenSession,
    RunTrace,
    Submit,
    TruncateReply,
    UpdateDraft,
    Wake,
)
from descant.engine.models import Models
from descant.engine.session import AnswerSettings, Request
from descant.engine.stages import NO_VOICE
from descant.engine.worker import ENGINE_CLOSED, EngineWorker, prefers_one_thread
from descant.errors import BusyError, OptionError, SessionError
from descant.model.codec import check_decoding
from descant.tokens import PromptTokens

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

    # ------------------------------------------------------------ answers

    def submit(self, request: Request) -> Answer:
        """Ask for an answer.

        OptionError: it is impossible. BusyError: the queue is full, or it could never fit. SessionError: closed.
        """
        self._check_settings(request.settings)
        tokens, talker_tokens = most_tokens(request)
        reservation = self.limits.pages(tokens, talker_tokens)
        if not self.worker.slots.fits(reservation):
            raise BusyError(
                f"a request of up to {tokens} tokens and {talker_tokens} of speech cannot fit an engine of "
                f"{self.limits.tokens} and {self.limits.talker_tokens}; shorten it, or lower max_tokens"
            )
        request.prompt.hash_media()  # here, for the worker must not wait for it
        with self._lock:
            answer = self._enqueue()
            self.worker.inbox.put(Submit(weakref.ref(answer), answer.number, request, reservation))
        return answer

    def cancel(self, number: int) -> None:
        """Cancel an answer. Harmless when it has ended."""
        self.worker.inbox.put(CancelAnswer(number))

    def trace(self, request: Request) -> dict[str, Tensor]:
        """Make a deterministic pass on the worker, written down; see ``engine.trace``. Others wait meanwhile."""
        self._check_settings(request.settings)
        result: Future[dict[str, Tensor]] = Future()
        self.start()
        with self._lock:
            self.check_open()
            self.worker.inbox.put(RunTrace(request, result))
        return result.result()

    # ------------------------------------------------------------ live sessions

    def open(
        self, settings: AnswerSettings, system: PromptTokens, closing: PromptTokens, *, max_tokens: int, drop: bool
    ) -> int:
        """Open a live session; returns its number. settings: of its answers; for the rest see ``OpenSession``.

        BusyError: too many are open.
        """
        self._check_settings(settings)
        with self._lock:
            self._check_admission()
            if self._live_sessions >= self.limits.live_sessions:
                raise BusyError(f"{self._live_sessions} live sessions are open already; close one")
            self._opened = self._opened + 1
            number = next(self._numbers)
            self.worker.inbox.put(OpenSession(number, settings, system, closing, max_tokens, drop))
        return number

    def update_draft(self, session: int, draft: PromptTokens) -> None:
        """Say how far the turn that a live session is making has come."""
        draft.hash_media()
        self.worker.inbox.put(UpdateDraft(session, draft))

    def is_caught_up(self, session: int) -> bool:
        """True if all that a live session was told of is read. A look from another thread: it may be old."""
        slot = self.worker.slots.get(session)
        return slot is None or not slot.session.context.unread

    def ask(self, session: int, turn: Callable[[], PromptTokens], settings: AnswerSettings, clock: float) -> Answer:
        """Answer the turn of a live session, which is complete since ``clock``. turn: called once there is a place in
        the queue.

        BusyError: there is none; and what ``turn`` raises.
        """
        self._check_settings(settings)
        with self._lock:
            answer = self._enqueue()
        posted = False
        try:
            tokens = turn()
            tokens.hash_media()
            message = Ask(session, weakref.ref(answer), answer.number, tokens, settings, clock)
            with self._lock:
                self.check_open()
                self.worker.inbox.put(message)
                posted = True
        finally:
            if not posted:
                with self._lock:
                    self._asked -= 1
        return answer

    def truncate_reply(self, session: int, answer: int, characters: int) -> None:
        """Truncate the reply that ``answer`` gave in a live session to its first ``characters``."""
        self.worker.inbox.put(TruncateReply(session, answer, characters))

    def close_session(self, session: int) -> None:
        """Close a live session. Harmless when repeated."""
        self.worker.inbox.put(CloseSession(session))

    # ------------------------------------------------------------ the whole

    def start(self) -> None:
        """Serve on a thread of its own, until ``close``, or until nobody holds the engine or an answer of it."""
        with self._lock:
            if self._thread is None and not self.worker.closed.is_set():
                arguments = (self._threads,)
                self._thread = threading.Thread(
                    target=self.worker.run, args=arguments, name="descant-engine", daemon=True
                )
                weakref.finalize(self, halt, self.worker, self._thread)  # also when the program ends
                self._thread.start()

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

    def estimate_s(self) -> float:
        """Seconds until a request that came now would be served, from how long the last answers took."""
        mean = sum(self.worker.answer_s) / len(self.worker.answer_s)
        return mean * (1 + self._queued / max(1, self.limits.sessions))

    def ledger(self) -> Ledger:
        """The ledger of what is lent out now."""
        return self.worker.slots.ledger(self._live_sessions, self._queued)

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
        if settings.voice is not None:
            if self.models.talker is None or self.models.token2wav is None:
                raise OptionError(NO_VOICE)
            check_decoding(settings.decoding)

    def _enqueue(self) -> Answer:
        """A place in the queue; the lock is held, so that whatever is asked is known to whoever closes the engine."""
        self._check_admission()
        if self._queued >= self.limits.waiting:
            wait = self.estimate_s()
            raise BusyError(f"{self._queued} requests wait already; try again in {wait:.0f} s", wait)
        self._asked += 1
        return Answer(self, next(self._numbers))


def halt(worker: EngineWorker, thread: threading.Thread) -> None:
    """Close an engine and wait for the end of its worker, which looks up and sees it closed."""
    worker.closed.set()  # before the word: a step that is under way may take that out of the inbox
    worker.inbox.put(Wake())
    if thread is not threading.current_thread():  # which may come here from a finalizer; it ends after its step
        thread.join()
