"""The child's side of the decoder process: ``python -m descant.inputs.decoder_child``. It imports no tensor library.

It imports every decoder first, then confines itself, says how, and answers jobs, each under its limits.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable
from typing import IO

import av
from PIL import Image as Pillow

from descant.errors import MediaError
from descant.inputs.audio_file import decode_audio
from descant.inputs.confine import confine
from descant.inputs.image_file import decode_image
from descant.inputs.video_file import decode_video
from descant.inputs.wire import DecodeJob, Reply, read_job, write_head, write_reply

if sys.platform != "win32":
    import resource  # here, as nothing can be imported later

OPEN_FILES = 16  # where they can be opened at all


def run_job(job: DecodeJob) -> Reply:
    """Decode one file here."""
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
    if sys.platform == "win32":  # no such limits: there the budgets of the decoders stand alone
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    allowed = int(used.ru_utime + used.ru_stime + job.cpu_s) + 1
    limits = {
        resource.RLIMIT_CPU: allowed,
        resource.RLIMIT_AS: job.budget.decoder_bytes,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: OPEN_FILES,
    }
    for which, most in limits.items():
        hard = resource.getrlimit(which)[1]
        resource.setrlimit(which, (most if hard < 0 else min(most, hard), hard))


def load_decoders() -> None:
    """Import what the libraries import when they need it: a confined process finds no module any more."""
    Pillow.init()
    importlib.import_module("numpy.ma")  # np.median's
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if not module.name.startswith("av.__"):  # its command
            importlib.import_module(module.name)


def serve_jobs(stdin: IO[bytes], stdout: IO[bytes], run: Callable[[DecodeJob], Reply] = run_job) -> None:
    """Confine this process, say how, and answer jobs until nobody asks any more."""
    load_decoders()
    write_head(stdout, {"confinement": confine()})
    while (job := read_job(stdin)) is not None:
        set_limits(job)
        write_reply(stdout, run(job))


if __name__ == "__main__":
    serve_jobs(sys.stdin.buffer, sys.stdout.buffer)
