"""Messages between the decoder process and this one: lengths, a head, and the memory of arrays, without a copy.

A job goes to the child as a pickle: it comes from this program. A reply comes from a process that has read a stranger's
file, so nothing in it is executed: its head is JSON, arrays are raw bytes, and what does not fit the job is no reply.
"""

from __future__ import annotations

import json
import math
import pickle
import re
import struct
from dataclasses import dataclass, field, replace
from typing import IO, Any

import numpy as np

from descant.checks import is_finite_number
from descant.config import InputsConfig
from descant.types import Budget, Clip, MediaKind

LENGTH = struct.Struct("<Q")  # before each part of a message: its bytes
REPLY_HEAD_BYTES = 1 << 14  # of a reply's JSON
REFUSAL_CODE = re.compile(r"[a-z]{1,20}\.[a-z_]{1,40}")
REFUSAL_CHARACTERS = 2000
# what a kind of medium becomes: the type and the axes of its arrays, in order; the sound of a video may be missing
FORMS: dict[MediaKind, list[tuple[str, int]]] = {
    "image": [("uint8", 3)],
    "audio": [("float32", 1)],
    "video": [("uint8", 4), ("float32", 1)],
}


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


def write_job(pipe: IO[bytes], job: DecodeJob) -> None:
    """Ask the child. Raises OSError when it is gone."""
    buffers: list[pickle.PickleBuffer] = []
    job = replace(job, data=pickle.PickleBuffer(job.data))
    head = pickle.dumps(job, protocol=5, buffer_callback=buffers.append)
    for view in (memoryview(head), buffers[0].raw()):
        pipe.write(LENGTH.pack(view.nbytes))
        pipe.write(view)
    pipe.flush()


def read_job(pipe: IO[bytes]) -> DecodeJob | None:
    """The next job; None at the end of the pipe."""
    parts: list[bytearray] = []
    for _ in range(2):
        length = pipe.read(LENGTH.size)
        if len(length) < LENGTH.size:
            return None
        parts.append(bytearray(LENGTH.unpack(length)[0]))
        if not read_into(pipe, memoryview(parts[-1])):
            return None
    job = pickle.loads(parts[0], buffers=parts[1:])  # noqa: S301 - from the program that started us, never from a file
    return job if isinstance(job, DecodeJob) else None


def write_head(pipe: IO[bytes], head: dict[str, Any]) -> None:
    """Write JSON, and flush."""
    data = json.dumps(head).encode()
    pipe.write(LENGTH.pack(len(data)) + data)
    pipe.flush()


def read_head(pipe: IO[bytes]) -> dict[str, Any] | None:
    """JSON of the child; None where there is none."""
    length = pipe.read(LENGTH.size)
    if len(length) < LENGTH.size or (size := LENGTH.unpack(length)[0]) > REPLY_HEAD_BYTES:
        return None
    data = pipe.read(size)
    try:
        head = json.loads(data) if len(data) == size else None
    except (ValueError, RecursionError):
        return None
    return head if isinstance(head, dict) else None


def write_reply(pipe: IO[bytes], reply: Reply) -> None:
    """Answer the parent."""
    result = reply.result
    arrays = [result] if isinstance(result, np.ndarray) else []
    head: dict[str, Any] = {"refusal": reply.refusal}
    if isinstance(result, Clip):
        arrays = [result.frames, *([] if result.sound is None else [result.sound])]
        head["fps"] = result.fps
    arrays = [np.ascontiguousarray(array) for array in arrays]
    write_head(pipe, head | {"shapes": [array.shape for array in arrays]})
    for array in arrays:
        pipe.write(array.data.cast("B"))
    pipe.flush()


def read_reply(pipe: IO[bytes], job: DecodeJob) -> Reply | None:
    """The reply to a job; None where the pipe ends, or what comes is no reply to it."""
    head = read_head(pipe)
    if head is None:
        return None
    if (refusal := head.get("refusal")) is not None:
        return Reply(refusal=(refusal[0], refusal[1])) if _is_refusal(refusal) else None
    shapes, form = head.get("shapes"), FORMS[job.kind]
    fps = head.get("fps")
    least = 1 if job.kind == "video" else len(form)
    if not isinstance(shapes, list) or not least <= len(shapes) <= len(form):
        return None
    if not all(_is_shape(shape, axes) for shape, (_, axes) in zip(shapes, form, strict=False)):
        return None
    sizes = [math.prod(shape) * np.dtype(kind).itemsize for shape, (kind, _) in zip(shapes, form, strict=False)]
    if sum(sizes) > job.budget.decoder_bytes:  # more than the child could hold
        return None
    arrays = [np.empty(shape, kind) for shape, (kind, _) in zip(shapes, form, strict=False)]
    if not all(read_into(pipe, array.data.cast("B")) for array in arrays if array.size):
        return None
    if any(array.dtype == np.float32 and not np.isfinite(array).all() for array in arrays):
        return None
    if job.kind != "video":
        return Reply(arrays[0])
    return Reply(Clip(arrays[0], float(fps), *arrays[1:])) if is_finite_number(fps) else None  # type: ignore[arg-type]


def _is_refusal(given: object) -> bool:
    match given:
        case [str(code), str(message)]:
            return REFUSAL_CODE.fullmatch(code) is not None and len(message) <= REFUSAL_CHARACTERS
    return False


def _is_shape(given: object, axes: int) -> bool:
    """True for sizes of ``axes`` axes; of pictures the last is their three colours."""
    if not isinstance(given, list) or len(given) != axes or not all(type(n) is int and 0 <= n < 1 << 40 for n in given):
        return False
    return axes == 1 or given[-1] == 3


def read_into(pipe: IO[bytes], view: memoryview) -> bool:
    """Read into all of ``view``; False when the pipe ends before."""
    while view:
        got = pipe.readinto(view)  # type: ignore[attr-defined]  # a binary pipe has it
        if not got:
            return False
        view = view[got:]
    return True
