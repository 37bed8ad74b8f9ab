"""The keys of a talk in a real terminal: turns begin and end, answers are interrupted, and no key is lost."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import termios
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WAIT_S = 60.0  # for more of what should come at once; a busy machine may need it

# Its microphone hears a loud room, and its loudspeaker plays at its own pace, each on a thread.
SOUNDDEVICE = """
import threading, time
import numpy as np

class PortAudioError(Exception): pass

def query_devices(*, kind):
    return {"default_samplerate": 48000.0, "max_output_channels": 2, "max_input_channels": 1}

class Stream:
    latency = 0.0
    def __init__(self, *, samplerate, channels, dtype, callback):
        self.channels, self.callback, self.active = channels, callback, False
    def start(self):
        self.active = True
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()
    def work(self):
        while self.active:
            time.sleep(0.01)
            self.callback(np.full((480, self.channels), LEVEL, np.float32), 480, None, None)
    def stop(self):
        if self.active:
            self.active = False
            self.thread.join()
    abort = close = stop

InputStream = OutputStream = Stream
"""
CHAT = """
import signal
import sys
from tests.stub import StubOmni
from descant.cli import common, main
omni = StubOmni(pause=0.02)
answer = omni.events
def events(*, speech):
    omni.endless = len(omni.calls) > 1  # all but the first
    return answer(speech=speech)
omni.events = events
common.open_model = lambda name, **options: omni
signal.signal(signal.SIGINT, signal.default_int_handler)  # what began the tests may have it ignored
sys.exit(main(["chat", *sys.argv[1:]]))
"""


@dataclass
class Terminal:
    """A program in a terminal. shown: what it wrote that was not waited for yet."""

    program: subprocess.Popen[bytes]
    fd: int
    shown: str = ""

    def until(self, text: str) -> str:
        """Read until a text has come; returns all before it."""
        while text not in self.shown:
            ready = select.select([self.fd], [], [], WAIT_S)[0]
            assert ready, f"no {text!r} in {self.shown[-2000:]!r}"
            self.shown += os.read(self.fd, 65536).decode(errors="replace")
        before, _, self.shown = self.shown.partition(text)
        return before

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())


@pytest.fixture
def terminal(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    options, level = request.param
    (tmp_path / "sounddevice.py").write_text(f"LEVEL = {level}\n{SOUNDDEVICE}")
    ours, theirs = pty.openpty()
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "HOME": str(tmp_path), "TERM": "xterm", "LC_ALL": "C.UTF-8"}
    program = subprocess.Popen(
        [sys.executable, "-c", CHAT, *options],
        cwd=tmp_path,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    yield Terminal(program, ours)
    program.kill()
    program.wait()
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("terminal", [((), 0.5)], indirect=True)
def test_a_talk_by_key(terminal: Terminal) -> None:
    before = termios.tcgetattr(terminal.fd)[3]
    terminal.until("Enter on an empty line: speak")
    terminal.until("you> ")
    terminal.type("\n")
    terminal.until(24 * "█")  # it hears, for 24 looks
    terminal.type("\n")
    terminal.until("Seven plus five is twelve.")
    terminal.until("answer-1.wav")
    terminal.until("you> ")
    terminal.type("Hello\n")
    terminal.until("twelve.")
    terminal.type(" ")
    assert "\x1b[2m" in terminal.until("\x1b[0m")  # what was not heard is grey
    terminal.until("you> ")
    terminal.type("\x1b[A")  # the last line again
    terminal.until("Hello")
    terminal.type("\n")
    terminal.until("twelve.")
    terminal.type("abc\n")
    terminal.until("\x1b[0m")
    terminal.until("you> abc")
    terminal.type("\x15/quit\n")
    assert terminal.program.wait(WAIT_S) == 0
    assert termios.tcgetattr(terminal.fd)[3] == before


@pytest.mark.parametrize("terminal", [(("--mic", "hands-free"), 0.0)], indirect=True)
def test_no_key_is_lost_to_open_ears(terminal: Terminal) -> None:
    terminal.until("speak, or type")
    terminal.type("typed")
    terminal.until("you> typed")
    terminal.type(" line\n")
    terminal.until("Seven plus five is twelve.")
    terminal.until("speak, or type")
    terminal.type("\x1b[A\n")
    terminal.until("you> typed line")
    terminal.until("twelve.")
    os.kill(terminal.program.pid, 2)
    terminal.until("heard:")
    terminal.until("speak, or type")
    os.kill(terminal.program.pid, 2)  # at the prompt it ends the talk, as ever
    assert terminal.program.wait(WAIT_S) == 130
