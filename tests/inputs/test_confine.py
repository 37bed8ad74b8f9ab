"""The confinement of the decoder process: what a decoder that was taken over can still reach, which is nothing."""

from __future__ import annotations

import errno
import io
import json
import struct
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from descant.inputs import confine, wire
from descant.inputs.confine import ALLOWED_CALLS, CLONE, CLONE3, MACHINES, MAPPING, PRLIMIT, filter_of
from descant.inputs.decoder import confinement, decode_apart
from descant.inputs.decoder_child import run_job
from descant.types import Clip
from tests.inputs.corpus import jobs

seccomp_only = pytest.mark.skipif(confinement() != "seccomp", reason="this system has no seccomp")
PROGRAM = """
import ctypes, json, mmap, os, resource, socket, subprocess, sys, threading, time
from descant.inputs.confine import confine
libc = ctypes.CDLL(None, use_errno=True)
standing = socket.socketpair()
found = {"confine": confine()}

def try_to(name, act):
    try:
        act()
        found[name] = "done"
    except BaseException as error:
        found[name] = type(error).__name__

def thread():
    one = threading.Thread(target=lambda: sum(range(1000)))
    one.start()
    one.join()

try_to("open a file", lambda: open("/etc/hostname"))
try_to("write a file", lambda: open("/tmp/x", "w"))
try_to("see whether a file is there", lambda: os.stat("/"))
try_to("list a folder", lambda: os.listdir("/"))
try_to("open a socket", socket.socket)
try_to("reach a name", lambda: socket.create_connection(("localhost", 9), 1))
try_to("send a descriptor", lambda: socket.send_fds(standing[0], [b"x"], [0]))
try_to("run a program", lambda: subprocess.run(["/bin/true"]))
try_to("become a program", lambda: os.execv("/bin/true", ["true"]))
try_to("fork", os.fork)
try_to("signal its parent", lambda: os.kill(os.getppid(), 0))
try_to("limit its parent", lambda: resource.prlimit(os.getppid(), resource.RLIMIT_CPU))
try_to("make code", lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC))
try_to("import", lambda: __import__("wave"))
try_to("use memory", lambda: mmap.mmap(-1, 4096))
try_to("use a thread", thread)
try_to("limit itself", lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)))
try_to("tell the time", time.time)
print(json.dumps(found))
"""
FREE = {"use memory", "use a thread", "limit itself", "tell the time"}


@seccomp_only
def test_a_confined_process_computes_and_reaches_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True, timeout=60)
    found = json.loads(done.stdout)
    assert found.pop("confine") == "seccomp" and len(found) == 18
    assert {name for name, how in found.items() if how == "done"} == FREE, found


def test_a_system_without_seccomp_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine.platform, "machine", lambda: "riscv64")
    assert confine.confine() == "none"


# ---------------------------------------------------------------- the filter, run here as the kernel runs it


def verdict(program: bytes, architecture: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """What a filter returns for one call: an interpreter of the instructions that filters here have."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, architecture, 0, *padded)
    steps = [confine.INSTRUCTION.unpack_from(program, at) for at in range(0, len(program), confine.INSTRUCTION.size)]
    place = word = 0
    while True:
        code, when, otherwise, value = steps[place]
        place += 1
        match code:
            case confine.LOAD_WORD:
                (word,) = struct.unpack_from("<I", data, value)
            case confine.IF_EQUAL:
                place += when if word == value else otherwise
            case confine.IF_AT_LEAST:
                place += when if word >= value else otherwise
            case confine.IF_BITS:
                place += when if word & value else otherwise
            case confine.RETURN_CODE:
                return int(value)


def columns() -> Iterator[tuple[int, int]]:
    yield from sorted(set(MACHINES.values()))


REFUSE = confine.FAIL_VERDICT | errno.EPERM


@pytest.mark.parametrize("column, architecture", columns())
def test_the_filter_lets_through_what_is_listed_and_no_more(column: int, architecture: int) -> None:
    program = filter_of(column, architecture)
    listed = {numbers[column] for numbers in ALLOWED_CALLS.values()}
    special = {CLONE[column], PRLIMIT[column], *(call[column] for call in MAPPING)}
    for number in range(600):
        with_bits = verdict(program, architecture, number, (1 << 20, 1, 4, 0))
        if number in listed:
            assert with_bits == confine.ALLOW_VERDICT
        elif number == CLONE3[column]:
            assert with_bits == confine.FAIL_VERDICT | errno.ENOSYS
        else:
            assert with_bits == REFUSE, number
        assert verdict(program, architecture ^ 1, number) == REFUSE  # another table of calls
        assert verdict(program, architecture, number | confine.X32_BIT) == REFUSE
    assert len(listed - {None}) >= 30 and not listed & special


@pytest.mark.parametrize("column, architecture", columns())
def test_threads_and_memory_by_their_arguments(column: int, architecture: int) -> None:
    def of(number: int, *arguments: int) -> bool:
        return verdict(filter_of(column, architecture), architecture, number, arguments) == confine.ALLOW_VERDICT

    assert of(CLONE[column], confine.CLONE_THREAD | 0x100) and not of(CLONE[column], 0x11)
    assert of(PRLIMIT[column], 0) and not of(PRLIMIT[column], 1234)
    for call in MAPPING:
        assert of(call[column], 0, 4096, 3) and not of(call[column], 0, 4096, 5)


# ---------------------------------------------------------------- what a confined process needs is there


IMPORTS = """
import io, sys
from descant.inputs import decoder_child, wire
jobs = list(iter(lambda: wire.read_job(sys.stdin.buffer), None))
decoder_child.load_decoders()
before = set(sys.modules)
for job in jobs:
    assert decoder_child.run_job(job).refusal is None, job
    for cut in (3, 2, 1.1):
        short = wire.DecodeJob(**{**vars(job), "data": bytes(job.data)[: int(len(job.data) / cut)]})
        decoder_child.run_job(short)
print(*sorted(set(sys.modules) - before))
"""


def test_no_decoder_imports_anything_later() -> None:
    asked = io.BytesIO()
    for job in jobs().values():
        wire.write_job(asked, job)
    command = [sys.executable, "-c", IMPORTS]
    done = subprocess.run(command, input=asked.getvalue(), capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert done.stdout.strip() == b"" and len(jobs()) >= 28


@pytest.mark.parametrize("name", jobs())
def test_every_format_is_decoded_confined(name: str) -> None:
    """What the decoder process gives is what the same decoder gives here."""
    apart = decode_apart(jobs()[name])
    here = run_job(jobs()[name]).result
    if isinstance(here, Clip):
        assert np.array_equal(apart.frames, here.frames) and (apart.sound is None) == (here.sound is None)
        assert here.sound is None or np.array_equal(apart.sound, here.sound)
    else:
        assert np.array_equal(apart, here)
