"""The microphone and the loudspeaker of this machine, by sounddevice (PortAudio), the extra ``[mic]``.

    microphone -> callback -> ring -> read()          write() -> resampler -> ring -> callback -> loudspeaker

The callbacks run on a thread of PortAudio's that must never wait: all they do is to copy between its buffers and a
ring. A device is opened at its own rate, as not every one knows another.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import soxr

from descant.config import OUTPUT_RATE_HZ
from descant.errors import DescantError, readable

RING_S = 4.0  # of sound between two threads
STALLED_S = 1.5  # without a callback: the device is gone, whatever PortAudio says of it
AGAIN_S = 0.12  # of sound that must be there after an under-run, doubled each time
MOST_AGAIN_S = 1.0

Direction = Literal["input", "output"]
DEVICE_NAMES: dict[Direction, str] = {"input": "microphone", "output": "loudspeaker"}


def sound_library() -> Any | None:
    """The module sounddevice; None: it is not installed. Raises DescantError where PortAudio is missing."""
    try:
        import sounddevice
    except ImportError:
        return None
    except OSError:
        raise DescantError(
            "sounddevice finds no PortAudio, so there is no microphone; install it (Debian: apt install libportaudio2)"
        ) from None
    return sounddevice


class SampleRing:
    """Samples on their way from one thread to another. It has room for so many, and nobody ever waits at it.

    written, taken: samples since it was made. Only who writes moves the first, and only who reads the second.
    """

    def __init__(self, room: int):
        self.written = 0
        self.taken = 0
        self._samples = np.zeros(room, np.float32)

    def __len__(self) -> int:
        """Samples that wait."""
        return self.written - self.taken

    def write(self, samples: npt.NDArray[np.float32]) -> int:
        """Take samples (W,), the first of them as far as there is room; returns how many."""
        room = len(self._samples)
        count = min(len(samples), room - len(self))
        at = self.written % room
        first = min(count, room - at)
        self._samples[at : at + first] = samples[:first]
        self._samples[: count - first] = samples[first:count]
        self.written += count
        return count

    def read(self, into: npt.NDArray[np.float32]) -> int:
        """Fill (W,) from its beginning with what waits; returns how many samples that were."""
        count = min(len(into), len(self))
        at = self.taken % len(self._samples)
        first = min(count, len(self._samples) - at)
        into[:first] = self._samples[at : at + first]
        into[first:count] = self._samples[: count - first]
        self.taken += count
        return count


class SoundStream:
    """An open device. rate: its own, in Hz."""

    def __init__(self, library: Any, direction: Direction, clock: Callable[[], float]):
        self.name = DEVICE_NAMES[direction]
        self._clock = clock
        self._beat = clock()  # when its callback came last
        with self._faults(library):
            device = library.query_devices(kind=direction)
            self.rate = round(device["default_samplerate"])
            self._ring = SampleRing(round(RING_S * self.rate))
            make = library.InputStream if direction == "input" else library.OutputStream
            channels = 1 if direction == "input" else min(2, device["max_output_channels"])
            self._stream = make(samplerate=self.rate, channels=channels, dtype="float32", callback=self._called)
            self._stream.start()
            self._beat = clock()  # a headset may take its time to open

    def is_gone(self) -> bool:
        """True when the device has gone away: unplugged, or taken by the system."""
        return not self._stream.active or self._clock() - self._beat > STALLED_S

    def close(self) -> None:
        """Let go of the device; a loudspeaker first plays what it was given. Harmless when repeated."""
        if self.is_gone():
            self._stream.abort()
        else:
            self._stream.stop()
        self._stream.close()

    def _called(self, data: npt.NDArray[np.float32], frames: int, times: object, status: object) -> None:
        """PortAudio's callback: ``frames`` of the device, (frames, channels). On its thread."""
        self._beat = self._clock()
        self._copy(data)

    def _copy(self, data: npt.NDArray[np.float32]) -> None:
        raise NotImplementedError

    @contextmanager
    def _faults(self, library: Any) -> Iterator[None]:
        """PortAudio's errors as ours."""
        try:
            yield
        except (library.PortAudioError, ValueError, OSError) as error:
            raise DescantError(f"no {self.name}: {readable(str(error))}") from None


class Microphone(SoundStream):
    """An open microphone. lost: samples that nobody came to read in time."""

    def __init__(self, library: Any, clock: Callable[[], float] = time.monotonic):
        self.lost = 0
        super().__init__(library, "input", clock)

    def read(self) -> npt.NDArray[np.float32]:
        """All that came since (W,)."""
        samples = np.empty(len(self._ring), np.float32)
        self._ring.read(samples)
        return samples

    def _copy(self, data: npt.NDArray[np.float32]) -> None:
        self.lost += len(data) - self._ring.write(data[:, 0])


class Loudspeaker(SoundStream):
    """An open loudspeaker, for one answer. It plays at once, and where the sound ran out waits until more is there.

    underruns: times that it ran out.
    """

    def __init__(self, library: Any, clock: Callable[[], float] = time.monotonic):
        self.underruns = 0
        self._later: deque[npt.NDArray[np.float32]] = deque()  # that the ring has no room for yet
        self._closing = False  # no more sound comes
        self._ended = False  # and all of it is in the ring
        self._waits = True  # for enough sound to begin with
        self._need = 0  # samples that are enough
        super().__init__(library, "output", clock)
        self._resampler = None
        if self.rate != OUTPUT_RATE_HZ:
            self._resampler = soxr.ResampleStream(OUTPUT_RATE_HZ, self.rate, 1, dtype="float32", quality="HQ")

    def write(self, samples: npt.NDArray[np.float32]) -> None:
        """Take samples (W,) at OUTPUT_RATE_HZ."""
        self._later.append(samples if self._resampler is None else self._resampler.resample_chunk(samples))
        self.feed()

    def end(self) -> None:
        """No more sound comes."""
        if self._resampler is not None and not self._closing:
            self._later.append(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        self._closing = True
        self.feed()

    def feed(self) -> None:
        """Move what was written to where the callback finds it; to be called now and then while it plays."""
        while self._later:
            count = self._ring.write(self._later[0])
            if count < len(self._later[0]):
                self._later[0] = self._later[0][count:]
                return
            self._later.popleft()
        self._ended = self._closing

    @property
    def silent(self) -> bool:
        """True once all that was written has left, and no more comes."""
        return self._ended and not len(self._ring)

    @property
    def heard_s(self) -> float:
        """Seconds of sound that have come to the ear: those that left, but for what is still under way."""
        seconds: float = self._ring.taken / self.rate - self._stream.latency
        return max(0.0, seconds)

    def stop(self) -> float:
        """Fall silent now; returns the seconds of sound that were heard."""
        self._stream.abort()
        heard = self.heard_s
        self._stream.close()
        return heard

    def _copy(self, data: npt.NDArray[np.float32]) -> None:
        count = 0
        if self._ended or not self._waits or len(self._ring) > self._need:
            count = self._ring.read(data[:, 0])
            self._waits = False
            if count < len(data) and not self._ended:
                self._run_out()
        data[count:, 0] = 0
        data[:, 1:] = data[:, :1]

    def _run_out(self) -> None:
        """More sound must be there before it goes on, so that it does not stutter."""
        self._waits = True
        self._need = round(self.rate * min(MOST_AGAIN_S, AGAIN_S * 2**self.underruns))
        self.underruns += 1
