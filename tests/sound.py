"""A stand-in for sounddevice: its callbacks are called by hand, as often and for as many samples as a test likes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Sound = npt.NDArray[np.float32]


class PortAudioError(Exception):
    """As in sounddevice."""


@dataclass
class FakeStream:
    """One opened device. played: what the callback of a loudspeaker gave (frames, channels)."""

    samplerate: int
    channels: int
    dtype: str
    callback: Callable[[Sound, int, object, object], None]
    latency: float = 0.0
    active: bool = False
    ends: list[str] = field(default_factory=list)
    tail: Sound | None = None  # of a microphone: what is still under way when it is stopped
    played: list[Sound] = field(default_factory=list)

    def start(self) -> None:
        self.active = True

    def stop(self) -> None:
        if self.tail is not None and self.active:
            self.say(self.tail)
        self.active = False
        self.ends.append("stop")

    def abort(self) -> None:
        self.active = False
        self.ends.append("abort")

    def close(self) -> None:
        self.active = False
        self.ends.append("close")

    def say(self, samples: Sound) -> None:
        """The microphone hears samples (W,)."""
        self.callback(samples[:, None], len(samples), None, None)

    def pull(self, frames: int) -> Sound:
        """The loudspeaker wants frames; returns them (frames,)."""
        block = np.full((frames, self.channels), np.nan, np.float32)
        self.callback(block, frames, None, None)
        self.played.append(block)
        assert all((block[:, 0] == block[:, channel]).all() for channel in range(self.channels))
        return block[:, 0]


@dataclass
class FakeSounddevice:
    """The module. rate: of both devices; missing: of "input" and "output", those that are not there."""

    rate: float = 24000.0
    latency: float = 0.0
    missing: set[str] = field(default_factory=set)
    refuses: bool = False  # to open a device that is there
    inputs: list[FakeStream] = field(default_factory=list)
    outputs: list[FakeStream] = field(default_factory=list)
    PortAudioError: type[Exception] = PortAudioError

    def query_devices(self, *, kind: str) -> dict[str, Any]:
        if kind in self.missing:
            raise PortAudioError("Error querying device -1")
        return {"default_samplerate": self.rate, "max_output_channels": 6, "max_input_channels": 2}

    def InputStream(self, **options: Any) -> FakeStream:
        return self._opened(self.inputs, options)

    def OutputStream(self, **options: Any) -> FakeStream:
        return self._opened(self.outputs, options)

    def _opened(self, streams: list[FakeStream], options: dict[str, Any]) -> FakeStream:
        if self.refuses:
            raise PortAudioError("Device unavailable [PaErrorCode -9985]")
        streams.append(FakeStream(**options, latency=self.latency))
        return streams[-1]
