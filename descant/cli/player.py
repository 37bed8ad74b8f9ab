"""Sound on its way out: a WAV file that is valid at every moment, and a player fed while the answer is still made."""

from __future__ import annotations

import os
import queue
import shutil
import stat
import subprocess
import sys
import threading
import wave
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

from descant.errors import DescantError, OptionError
from descant.files import open_output
from descant.pcm import ENDLESS_BYTES, HEADER_BYTES, to_pcm16, wav_header

if TYPE_CHECKING:
    import numpy as np

STDOUT = "-"  # the name of standard output


class WavWriter:
    """A WAV file that grows. After every ``write`` its header is true, so an interrupted answer can still be heard.

    Into what cannot be sought (a pipe, /dev/null, "-" for stdout) the header says that the sound goes on to the end.
    """

    def __init__(self, path: str | Path, rate: int):
        self.path = Path(path)
        self.rate = rate
        self.samples = 0
        self._file: BinaryIO = sys.stdout.buffer if str(path) == STDOUT else open_output(self.path, "--out")
        self._grows = stat.S_ISREG(os.fstat(self._file.fileno()).st_mode) and str(path) != STDOUT
        self._file.write(wav_header(rate, 0 if self._grows else ENDLESS_BYTES))
        self._file.flush()

    def write(self, samples: np.ndarray) -> None:
        """Append float samples (W,), then make the header true again. OptionError names a file that is full."""
        pcm = to_pcm16(samples)
        try:
            if self._grows:
                self._file.seek(HEADER_BYTES + self.samples * 2)
            self._file.write(pcm)
            self.samples += len(pcm) // 2
            if self._grows:
                self._file.seek(0)
                self._file.write(wav_header(self.rate, self.samples * 2))
            self._file.flush()
        except OSError as error:
            raise cannot_write(self.path, error) from None

    @property
    def seconds(self) -> float:
        return self.samples / self.rate

    def close(self) -> None:
        """Also after an interrupt between the sound and the header of a ``write``: the header tells what is there."""
        if self._file is sys.stdout.buffer:
            return
        try:
            if self._grows and not self._file.closed:
                size = (self._file.seek(0, 2) - HEADER_BYTES) // 2 * 2
                self._file.truncate(HEADER_BYTES + max(0, size))
                self._file.seek(0)
                self._file.write(wav_header(self.rate, max(0, size)))
            self._file.close()
        except OSError as error:
            raise cannot_write(self.path, error) from None

    def __enter__(self) -> WavWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def cannot_write(path: Path, error: OSError) -> OptionError:
    """The error for an output that took what came so far, and no more."""
    return OptionError(f"cannot write {path} any more: {error.strerror}; make room, or name another file")


# name -> arguments that make it play a WAV stream from its standard input
PIPED = {
    "paplay": ("--raw", "--format=s16le", "--channels=1", "--rate={rate}"),
    "aplay": ("-q", "-t", "raw", "-f", "S16_LE", "-c", "1", "-r", "{rate}", "-"),
    "ffplay": ("-nodisp", "-autoexit", "-loglevel", "quiet", "-i", "pipe:0"),
}
FROM_FILE = ("afplay",)  # cannot read a pipe: plays the finished file


def find_player() -> str | None:
    """The first player that is installed, or None."""
    return next((name for name in (*PIPED, *FROM_FILE) if shutil.which(name)), None)


class Player:
    """Plays while the answer is made. A thread feeds the program, so a slow sound card never holds up the text."""

    def __init__(self, name: str, rate: int):
        self.name = name
        self.rate = rate
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self.died = False  # before it had played everything
        if name in PIPED:
            self._start_pipe()

    def _start_pipe(self) -> None:
        command = [self.name, *(part.format(rate=self.rate) for part in PIPED[self.name])]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if self.name == "ffplay":  # reads a WAV stream; the others were told the format of raw samples
            self._queue.put(wav_header(self.rate, ENDLESS_BYTES))
        self._thread = threading.Thread(target=self._feed, daemon=True)
        self._thread.start()

    def _feed(self) -> None:
        assert self._process is not None and self._process.stdin is not None
        try:
            while (data := self._queue.get()) is not None:
                self._process.stdin.write(data)
                self._process.stdin.flush()
            self._process.stdin.close()
        except OSError:  # the player went away: no sound card, or closed by its user
            self.died = True

    def write(self, samples: np.ndarray) -> None:
        if self._thread is not None:
            self._queue.put(to_pcm16(samples))

    def finish(self, path: Path | None) -> None:
        """Wait until everything was heard; ``path`` is the finished file, for a player that needs one."""
        if self._thread is not None and self._process is not None:
            self._queue.put(None)
            self._thread.join()
            self.died = self._process.wait() != 0 or self.died
        elif path is not None:
            done = subprocess.run([self.name, str(path)], capture_output=True, check=False)
            if done.returncode != 0:
                raise DescantError(f"{self.name} could not play {path}; the file itself is complete")

    def stop(self) -> None:
        """Fall silent now."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


def sound_of(path: Path) -> tuple[np.ndarray, int]:
    """The samples (W,) float32 and the rate of a WAV file of 16-bit mono."""
    import numpy as np

    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32767  # as to_pcm16
        return samples, file.getframerate()


def play_file(name: str, path: Path) -> None:
    """Hear a WAV file of 16-bit mono to its end."""
    samples, rate = sound_of(path)
    player = Player(name, rate)
    try:
        player.write(samples)
        player.finish(path)
    except KeyboardInterrupt:
        player.stop()
        raise
