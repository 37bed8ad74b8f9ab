"""The decoder process: files of strangers are decoded apart, under limits of CPU and memory that the system enforces.

    parent                                            child (python -m descant.inputs.decoder)
    decode_apart(job) -> a DecodeJob  ---- stdin ---->  limits, then the decoder of its kind
    arrays, or the MediaError       <--- stdout ----  pickle of a Reply

A child is started when the first file comes, and kept for the next one; threads that decode have one each. A child
that runs into a limit, or crashes, is that file's fault alone: the next file gets a new one. The child imports no
tensor library and takes 0.2 s to start. It reads what this process writes and this process reads what it writes, so a
pickle never comes from a file.
"""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from descant.config import InputsConfig
from descant.errors import MediaError
from descant.types import Budget, MediaKind

LENGTH = struct.Struct("<Q")  # before each message: its bytes
PACKAGE_PARENT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class DecodeJob:
    """One file to decode. format: a name of ``limits.FORMATS``; rate: of the samples that are wanted, in Hz; inputs:
    how the model wants a video, or a picture (None: as it is)."""

    kind: MediaKind
    data: bytes | pickle.PickleBuffer = field(repr=False)
    format: str
    budget: Budget
    inputs: InputsConfig | None = None
    rate: int = 0
    with_sound: bool | None = False

    @property
    def cpu_s(self) -> float:
        """Seconds of CPU that the file may cost."""
        return {"image": self.budget.image_cpu_s, "audio": self.budget.audio_cpu_s, "video": self.budget.video_cpu_s}[
            self.kind
        ]


@dataclass(frozen=True)
class Reply:
    """The outcome of a job: its result, or the code and the message of a MediaError."""

    result: Any = None
    refusal: tuple[str, str] | None = None


def decode_apart(job: DecodeJob) -> Any:
    """Decode a file in a child process. Raises MediaError, also "<kind>.too_costly" where the child ran out of CPU or
    memory, and "<kind>.decode_failed" where it crashed."""
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
        raise _lost(job, child.end())
    CHILDREN.give_back(child)
    if reply.refusal is not None:
        raise MediaError(*reply.refusal)
    return reply.result


def _lost(job: DecodeJob, signal_number: int) -> MediaError:
    """The error for a child that did not answer."""
    if signal_number in (signal.SIGXCPU, signal.SIGKILL):
        return MediaError(
            f"{job.kind}.too_costly",
            f"the {job.kind} takes over {job.cpu_s:g} s to decode; cut it shorter, or give "
            f"Budget({job.kind}_cpu_s=...) for a longer one.",
        )
    return MediaError(
        f"{job.kind}.decode_failed",
        f"the decoder of the {job.format} {job.kind} crashed (signal {signal_number}); export the file again.",
    )


# ---------------------------------------------------------------- the parent's side


class Child:
    """One decoder process, for one caller at a time."""

    def __init__(self) -> None:
        paths = [str(PACKAGE_PARENT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "descant.inputs.decoder"],
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

    def ask(self, job: DecodeJob) -> Reply | None:
        """The reply to a job; None when the process ended over it."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            _write(self.process.stdin, replace(job, data=pickle.PickleBuffer(job.data)))
            reply = _read(self.process.stdout)
        except OSError:
            return None
        return reply if isinstance(reply, Reply) else None

    def end(self) -> int:
        """End the process; returns the signal that had ended it, or 0."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            return max(0, -self.process.wait(timeout=5))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return signal.SIGKILL


class Children:
    """The decoder processes that nobody uses at the moment. A forked process starts its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[Child] = []
        self._owner = os.getpid()

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
            self._owner = os.getpid()


CHILDREN = Children()
atexit.register(CHILDREN.close)


def _write(pipe: IO[bytes], message: object) -> None:
    """Write a message; the memory of arrays and of PickleBuffers goes as it is, without a copy."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    views = [memoryview(head), *(buffer.raw() for buffer in buffers)]
    pipe.write(LENGTH.pack(len(views)) + b"".join(LENGTH.pack(view.nbytes) for view in views))
    for view in views:
        pipe.write(view)
    pipe.flush()


def _read(pipe: IO[bytes]) -> object:
    """The next message; None at the end of the pipe."""
    head = pipe.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (count,) = LENGTH.unpack(head)
    table = pipe.read(count * LENGTH.size)
    if len(table) < count * LENGTH.size:
        return None
    sizes = struct.unpack(f"<{count}Q", table)
    parts = [bytearray(size) for size in sizes]
    if any(not _fill(pipe, memoryview(part)) for part in parts):
        return None
    return pickle.loads(parts[0], buffers=parts[1:])  # noqa: S301 - from our own process, never from a file


def _fill(pipe: IO[bytes], view: memoryview) -> bool:
    """Read into all of ``view``; False when the pipe ends before."""
    while view:
        got = pipe.readinto(view)  # type: ignore[attr-defined]  # a binary pipe has it
        if not got:
            return False
        view = view[got:]
    return True


# ---------------------------------------------------------------- the child's side


def run_job(job: DecodeJob) -> Reply:
    """Decode one file here."""
    from descant.inputs.audio_file import decode_audio
    from descant.inputs.image_file import decode_image
    from descant.inputs.video_file import decode_video

    data = memoryview(job.data)
    try:
        if job.kind == "image":
            return Reply(decode_image(data, job.format, job.budget, job.inputs))
        if job.kind == "audio":
            return Reply(decode_audio(data, job.format, job.rate, job.budget))
        assert job.inputs is not None
        return Reply(decode_video(data, job.format, job.inputs, job.budget, with_sound=job.with_sound))
    except MediaError as error:
        return Reply(refusal=(error.code, str(error)))
    except MemoryError:
        return Reply(refusal=(f"{job.kind}.too_costly", _too_large(job)))


def _too_large(job: DecodeJob) -> str:
    return (
        f"the {job.kind} takes over {job.budget.decoder_bytes >> 20:,} MiB to decode; scale it down, or give "
        "Budget(decoder_bytes=...) for a larger one."
    )


def set_limits(job: DecodeJob) -> None:
    """The most that this process may use of CPU, from now on, and of memory in all."""
    try:
        import resource
    except ImportError:  # not on every system; there the budgets of the decoders stand alone
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    allowed = int(used.ru_utime + used.ru_stime + job.cpu_s) + 1
    limits = {
        resource.RLIMIT_CPU: allowed,
        resource.RLIMIT_AS: job.budget.decoder_bytes,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
    }
    for which, most in limits.items():
        hard = resource.getrlimit(which)[1]
        resource.setrlimit(which, (most if hard < 0 else min(most, hard), hard))


def serve_jobs(stdin: IO[bytes], stdout: IO[bytes], run: Callable[[DecodeJob], Reply] = run_job) -> None:
    """Answer jobs until nobody asks any more."""
    while isinstance(job := _read(stdin), DecodeJob):
        set_limits(job)
        _write(stdout, run(job))


if __name__ == "__main__":
    from descant.inputs import decoder  # the classes of this module under the name by which the parent knows them

    decoder.serve_jobs(sys.stdin.buffer, sys.stdout.buffer)
