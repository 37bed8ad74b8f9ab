"""The decoder process: its limits, its crashes and its ends are the file's fault alone."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from descant.config import InputsConfig
from descant.errors import MediaError
from descant.inputs import decoder, door, wire
from descant.inputs.decoder import CHILDREN, decode_apart
from descant.inputs.wire import DecodeJob, Reply
from descant.types import Budget, Clip
from tests.inputs import media

ROOT = Path(__file__).parents[2]
PICTURE = media.image_file(media.picture(40, 30))
CHILD = """
import ctypes, mmap, os, signal, socket, subprocess, sys, time
import numpy as np
from descant.inputs import decoder_child, wire

def run(job):
    {act}

decoder_child.serve_jobs(sys.stdin.buffer, sys.stdout.buffer, run)
"""
ACTS = {
    "spins": ("while True: pass", "image.too_costly", "over 0.1 s to decode"),
    "crashes": ("ctypes.string_at(0)", "image.decode_failed", "crashed"),
    "sleeps": ("time.sleep(60)", "image.decode_failed", "did not answer"),
    "leaves": ("sys.exit(3)", "image.decode_failed", "crashed"),
}


def job(**changes: object) -> DecodeJob:
    return DecodeJob("image", PICTURE, "PNG", Budget(image_cpu_s=0.1), **changes)  # type: ignore[arg-type]


def child_that(act: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the next decoder process do ``act`` with each job."""
    real = subprocess.Popen
    script = CHILD.format(act=act)

    def start(command: list[str], **options: object) -> object:
        return real([sys.executable, "-c", script], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(decoder, "CHILDREN", decoder.Children())
    monkeypatch.setattr(subprocess, "Popen", start)


@pytest.mark.parametrize("name", ACTS)
def test_a_child_that_does_not_answer_is_the_files_fault_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    act, code, words = ACTS[name]
    with monkeypatch.context() as patch:
        child_that(act, patch)
        patch.setattr(decoder, "HANG_S", 20.0 if name != "sleeps" else 1.0)
        with pytest.raises(MediaError, match=words) as caught:
            decode_apart(job())
        assert caught.value.code == code
    assert decode_apart(job()).shape == (40, 30, 3)


def test_memory_has_a_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    child_that("return wire.Reply(np.ones(2 << 30, np.uint8))", monkeypatch)
    with pytest.raises(MediaError, match="crashed"):  # the decoders' own MemoryError is a refusal
        decode_apart(job())


def test_one_child_serves_many_files_and_starts_no_tensor_library() -> None:
    decode_apart(job())
    idle = [child.process.pid for child in CHILDREN._idle]
    for _ in range(5):
        decode_apart(job())
    assert [child.process.pid for child in CHILDREN._idle] == idle
    program = "import sys, descant.inputs.decoder_child; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True)
    assert done.stdout.strip() == b"False"


def test_threads_have_children_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "CHILDREN", children := decoder.Children())
    found: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: found.append(decode_apart(job()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(np.array_equal(found[0], one) for one in found)
    assert 1 <= len(children._idle) <= 4
    children.close()


def test_an_interrupted_caller_leaves_no_child_half_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "CHILDREN", children := decoder.Children())
    decode_apart(job())
    (child,) = children._idle

    def interrupted(pipe: object, job: object) -> object:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(decoder, "read_reply", interrupted)
        with pytest.raises(KeyboardInterrupt):
            decode_apart(job())
    assert child.process.poll() is not None and not children._idle
    assert decode_apart(job()).shape == (40, 30, 3)
    children.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_starts_its_own() -> None:
    decode_apart(job())
    before = list(CHILDREN._idle)
    child = os.fork()
    if not child:
        decode_apart(job())
        os._exit(0 if CHILDREN._idle and CHILDREN._idle[-1] not in before else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert decode_apart(job()).shape == (40, 30, 3)


def test_a_system_that_starts_no_process_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> object:
        raise OSError("Resource temporarily unavailable")

    monkeypatch.setattr(decoder, "CHILDREN", decoder.Children())
    monkeypatch.setattr(subprocess, "Popen", refused)
    with pytest.raises(MediaError, match="cannot be started") as caught:
        door.open_image(PICTURE, Budget())
    assert caught.value.code == "media.no_decoder"


VIDEO_JOB = DecodeJob("video", b"", "mov", Budget(), InputsConfig(), with_sound=None)
SOUND_JOB = DecodeJob("audio", b"", "flac", Budget(), rate=16000)
FRAMES = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
REPLIES = [
    (job(), Reply(FRAMES[0])),
    (job(), Reply(refusal=("image.aspect", "too long"))),
    (SOUND_JOB, Reply(np.linspace(-1, 1, 40_000, dtype=np.float32))),
    (VIDEO_JOB, Reply(Clip(FRAMES, 2.0))),
    (VIDEO_JOB, Reply(Clip(FRAMES, 2.0, np.zeros(9, np.float32)))),
]


@pytest.mark.parametrize("case", range(len(REPLIES)))
def test_replies_pass_and_a_cut_pipe_is_an_end(case: int) -> None:
    asked, sent = REPLIES[case]
    pipe = io.BytesIO()
    wire.write_reply(pipe, sent)
    whole = pipe.getvalue()
    got = wire.read_reply(io.BytesIO(whole), asked)
    assert got is not None and got.refusal == sent.refusal and repr(got.result) == repr(sent.result)
    for length in range(0, len(whole) - 1, max(1, len(whole) // 100)):
        assert wire.read_reply(io.BytesIO(whole[:length]), asked) is None


def test_jobs_pass_and_a_cut_pipe_is_an_end() -> None:
    pipe = io.BytesIO()
    wire.write_job(pipe, job())
    whole = pipe.getvalue()
    assert (got := wire.read_job(io.BytesIO(whole))) is not None and bytes(got.data) == PICTURE and got.format == "PNG"
    for length in (0, 3, 9, 20, 200, len(whole) - 1):
        assert wire.read_job(io.BytesIO(whole[:length])) is None


class Bomb:
    """What a pickle would run."""

    def __reduce__(self) -> object:
        return (sys.exit, ("the child's answer was executed",))


def reply_of(head: object, body: bytes = b"") -> bytes:
    data = json.dumps(head).encode()
    return wire.LENGTH.pack(len(data)) + data + body


NONSENSE = {
    "a pickle": wire.LENGTH.pack(len(pickle.dumps(Bomb()))) + pickle.dumps(Bomb()),
    "a long head": wire.LENGTH.pack(1 << 40) + b"{}",
    "deep": wire.LENGTH.pack(16384) + b"[" * 16384,
    "a list": reply_of([]),
    "nothing": reply_of({}),
    "other axes": reply_of({"shapes": [[2, 2]]}, bytes(4)),
    "other colours": reply_of({"shapes": [[2, 2, 4]]}, bytes(16)),
    "less than nothing": reply_of({"shapes": [[-1, -1, 3]]}, bytes(3)),
    "true": reply_of({"shapes": [[True, True, 3]]}, bytes(3)),
    "half": reply_of({"shapes": [[1.0, 1, 3]]}, bytes(3)),
    "more than it could hold": reply_of({"shapes": [[1 << 20, 1 << 20, 3]]}),
    "two pictures": reply_of({"shapes": [[1, 1, 3], [1, 1, 3]]}, bytes(6)),
    "a code of its own": reply_of({"refusal": ["../x", "hello"]}),
    "a long refusal": reply_of({"refusal": ["image.aspect", "x" * 3000]}),
    "a refusal of three": reply_of({"refusal": ["image.aspect", "x", "y"]}),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_what_a_broken_child_says_is_no_reply(name: str) -> None:
    assert wire.read_reply(io.BytesIO(NONSENSE[name]), job()) is None


def test_numbers_of_a_broken_child_are_looked_at() -> None:
    sound = reply_of({"shapes": [[2]]}, np.array([0, np.nan], np.float32).tobytes())
    assert wire.read_reply(io.BytesIO(sound), SOUND_JOB) is None
    for fps in (None, "2", float("inf"), True):
        clip = reply_of({"shapes": [[1, 1, 1, 3]], "fps": fps}, bytes(3))
        assert wire.read_reply(io.BytesIO(clip), VIDEO_JOB) is None


def test_a_broken_childs_answer_is_that_files_fault_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        child_that(f"os.write(1, {NONSENSE['a pickle']!r}); time.sleep(60)", patch)
        patch.setattr(decoder, "LEAVE_S", 0.1)
        with pytest.raises(MediaError, match="crashed") as caught:
            decode_apart(job())
        assert caught.value.code == "image.decode_failed"
    assert decode_apart(job()).shape == (40, 30, 3)


REFUSED: dict[str, Callable[[], DecodeJob]] = {
    "picture": lambda: DecodeJob("image", PICTURE[:99], "PNG", Budget()),
    "sound": lambda: DecodeJob("audio", b"fLaC" + bytes(99), "flac", Budget(), rate=16000),
    "video": lambda: DecodeJob("video", bytes(99), "mov", Budget(), InputsConfig()),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_come_through(name: str) -> None:
    with pytest.raises(MediaError) as caught:
        decode_apart(REFUSED[name]())
    assert caught.value.code.endswith((".decode_failed", ".truncated"))
