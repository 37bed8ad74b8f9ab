"""The decoder process: its limits, its crashes and its ends are the file's fault alone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from descant.errors import MediaError
from descant.inputs import decoder, door
from descant.inputs.decoder import CHILDREN, DecodeJob, Reply, decode_apart, serve_jobs
from descant.types import Budget
from tests.inputs import media

ROOT = Path(__file__).parents[2]
PICTURE = media.image_file(media.picture(40, 30))
CHILD = """
import os, signal, sys
from descant.inputs import decoder

def run(job):
    {act}

decoder.serve_jobs(sys.stdin.buffer, sys.stdout.buffer, run)
"""
ACTS = {
    "spins": ("while True: pass", "image.too_costly", "over 0.1 s to decode"),
    "crashes": ("os.kill(os.getpid(), signal.SIGSEGV)", "image.decode_failed", "crashed"),
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


@pytest.mark.parametrize("name", ["spins", "crashes", "leaves"])
def test_a_child_that_does_not_answer_is_the_files_fault_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    act, code, words = ACTS[name]
    with monkeypatch.context() as patch:
        child_that(act, patch)
        with pytest.raises(MediaError, match=words) as caught:
            decode_apart(job())
        assert caught.value.code == code
    assert decode_apart(job()).shape == (40, 30, 3)


def test_memory_has_a_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    child_that("return decoder.Reply(bytearray(2 << 30))", monkeypatch)
    with pytest.raises(MediaError, match="crashed"):  # the decoders' own MemoryError is a refusal
        decode_apart(job())


def test_one_child_serves_many_files_and_starts_no_tensor_library() -> None:
    decode_apart(job())
    idle = [child.process.pid for child in CHILDREN._idle]
    for _ in range(5):
        decode_apart(job())
    assert [child.process.pid for child in CHILDREN._idle] == idle
    program = "import sys, descant.inputs.decoder, descant.inputs.video_file; print('torch' in sys.modules)"
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

    def interrupted(pipe: object) -> object:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(decoder, "_read", interrupted)
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


def test_messages_of_any_size_pass_and_a_cut_pipe_is_an_end(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    sent = Reply(np.arange(1000, dtype=np.float32).reshape(10, 100)), Reply(refusal=("a", "b")), Reply(b"x" * 100_000)
    with path.open("wb") as pipe:
        for reply in sent:
            decoder._write(pipe, reply)
    with path.open("rb") as pipe:
        got = [decoder._read(pipe) for _ in sent]
        assert decoder._read(pipe) is None
    assert isinstance(got[0], Reply) and np.array_equal(got[0].result, sent[0].result) and got[1:] == list(sent[1:])
    whole = path.read_bytes()
    for length in (3, 9, 20, 200, len(whole) - 1):
        path.write_bytes(whole[:length])
        with path.open("rb") as pipe:
            while decoder._read(pipe) is not None:
                pass
    with path.open("rb") as pipe, (tmp_path / "out").open("wb") as out:
        serve_jobs(pipe, out, lambda asked: Reply())  # no job: it ends


REFUSED: dict[str, Callable[[], DecodeJob]] = {
    "picture": lambda: DecodeJob("image", PICTURE[:99], "PNG", Budget()),
    "sound": lambda: DecodeJob("audio", b"fLaC" + bytes(99), "flac", Budget(), rate=16000),
    "video": lambda: DecodeJob("video", bytes(99), "mov", Budget(), media_inputs()),
}


def media_inputs() -> object:
    from descant.config import InputsConfig

    return InputsConfig()


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_come_through(name: str) -> None:
    with pytest.raises(MediaError) as caught:
        decode_apart(REFUSED[name]())
    assert caught.value.code.endswith((".decode_failed", ".truncated"))
