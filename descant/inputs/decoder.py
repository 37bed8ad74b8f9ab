"""The decoder process: files of strangers are decoded apart, under limits that the system enforces.

    parent                                            child (decoder_child.py)
    decode_apart(job) -> a DecodeJob  ---- stdin ---->  its limits of CPU and memory, then the decoder of its kind
    arrays, or the MediaError       <--- stdout ----  a Reply (wire.py)

A child is started when the first file comes, and kept for the next one; threads that decode have one each. It is
confined (confine.py): once its decoders are imported it can open no file, no socket and no program. A child that runs
into a limit, hangs, crashes or answers nonsense is that file's fault alone: the next file gets a new one. The child
imports no tensor library, knows nothing of this process's environment, and takes 0.2 s to start.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from descant.errors import MediaError
from descant.inputs.confine import Confinement
from descant.inputs.wire import DecodeJob, Reply, read_head, read_reply, write_job

log = logging.getLogger(__name__)
PACKAGE_PARENT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TEMP", "LANG")  # all that a child is told
LEAVE_S = 5.0  # seconds that a child may take to end, once nobody asks it
MOST_AT_ONCE = max(4, 2 * (os.cpu_count() or 1))  # processes
HANG_S = 20.0  # seconds of waiting, beside twice the CPU time, after which a child hangs


def decode_apart(job: DecodeJob) -> Any:
    """Decode a file in a child process. Raises MediaError, also "<kind>.too_costly" where the child ran out of CPU or
    memory, and "<kind>.decode_failed" where it crashed, hung or answered nonsense."""
    with CHILDREN.room:
        child = CHILDREN.take()
        answered = False
        try:
            reply = child.ask(job)
            answered = True
        finally:
            if not answered:  # this thread was interrupted, and the child may still be at work
                child.process.kill()
                child.end()
        if reply is None:
            raise _lost(job, child.end(), hung=child.hung)
        CHILDREN.give_back(child)
    if reply.refusal is not None:
        raise MediaError(*reply.refusal)
    return reply.result


def confinement() -> Confinement:
    """The confinement of decoder processes on this system; one is started to see it. Raises MediaError."""
    child = CHILDREN.take()
    found = child.hello()
    CHILDREN.give_back(child)
    return found


def _lost(job: DecodeJob, signal_number: int, *, hung: bool) -> MediaError:
    """The error for a child that did not answer."""
    if signal_number in (signal.SIGXCPU, signal.SIGKILL) and not hung:
        return MediaError(
            f"{job.kind}.too_costly",
            f"the {job.kind} takes over {job.cpu_s:g} s to decode; cut it shorter, or give "
            f"Budget({job.kind}_cpu_s=...) for a longer one.",
        )
    fault = "did not answer" if hung else f"crashed (signal {signal_number})" if signal_number else "crashed"
    return MediaError(
        f"{job.kind}.decode_failed", f"the decoder of the {job.format} {job.kind} {fault}; export the file again."
    )


class Child:
    """One decoder process, for one caller at a time. hung: it was ended because it did not answer."""

    def __init__(self) -> None:
        self.hung = False
        self._hello: Confinement | None = None
        paths = [str(PACKAGE_PARENT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        environment |= {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "descant.inputs.decoder_child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl-C is the parent's business
            )
        except OSError as error:
            raise MediaError(
                "media.no_decoder", f"the decoder process cannot be started ({error}); end other programs, then retry."
            ) from None

    def hello(self) -> Confinement:
        """The confinement of the child, which it tells before it is given any file."""
        if self._hello is None:
            assert self.process.stdout is not None
            said = (read_head(self.process.stdout) or {}).get("confinement")
            self._hello = "seccomp" if said == "seccomp" else "none"
            if self._hello == "none":
                log.warning("decoder processes are not confined on this system: limits of CPU and memory alone hold")
        return self._hello

    def ask(self, job: DecodeJob) -> Reply | None:
        """The reply to a job; None when the process ended over it, hung or answered nonsense."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with self._ended_after(2 * job.cpu_s + HANG_S):
            try:
                self.hello()
                write_job(self.process.stdin, job)
                return read_reply(self.process.stdout, job)
            except OSError:
                return None

    @contextmanager
    def _ended_after(self, seconds: float) -> Iterator[None]:
        """End the process if the block takes longer."""

        def end() -> None:
            self.hung = True
            self.process.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def end(self) -> int:
        """End the process; returns the signal that had ended it, or 0."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was not written yet, to a process that has gone
                    pipe.close()
        try:
            return max(0, -self.process.wait(timeout=LEAVE_S))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return 0


class Children:
    """The decoder processes that nobody uses at the moment. A forked process starts its own.

    room: entered while one is used; there are never more than MOST_AT_ONCE at work, as each may take much memory.
    """

    def __init__(self) -> None:
        self._room = threading.BoundedSemaphore(MOST_AT_ONCE)
        self._lock = threading.Lock()
        self._idle: list[Child] = []
        self._owner = os.getpid()

    @property
    def room(self) -> threading.BoundedSemaphore:
        with self._lock:
            self._check_owner()
            return self._room

    def take(self) -> Child:
        """A process that works, idle until now or new."""
        with self._lock:
            self._check_owner()
            while self._idle:
                child = self._idle.pop()
                if child.process.poll() is None:
                    return child
        return Child()

    def give_back(self, child: Child) -> None:
        with self._lock:
            self._check_owner()
            self._idle.append(child)

    def start(self) -> None:
        """Have a process ready, while something else is done."""
        self.give_back(self.take())

    def close(self) -> None:
        """End all that are idle."""
        with self._lock:
            while self._idle and self._owner == os.getpid():
                self._idle.pop().end()

    def _check_owner(self) -> None:
        if self._owner != os.getpid():
            self._idle = []
            self._room = threading.BoundedSemaphore(MOST_AT_ONCE)
            self._owner = os.getpid()


CHILDREN = Children()
atexit.register(CHILDREN.close)
