"""Sound on a realtime line: base64 of 16-bit PCM, or of G.711 (mu-law, A-law), in both directions.

Source of the two laws: ITU-T G.711.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soxr

from descant.config import OUTPUT_RATE_HZ
from descant.pcm import to_pcm16
from descant.server.errors import wrong
from descant.server.strict import strict_base64
from descant.server.tempo import Tempo

MAX_AUDIO_BYTES = 15 << 20  # of one append
SoundArray = npt.NDArray[np.float32]


def _mu_law() -> SoundArray:
    """The 256 levels of mu-law, in [-1, 1]."""
    code = ~np.arange(256, dtype=np.uint8)
    size = (((code & 15).astype(np.int32) << 3) + 132 << ((code >> 4) & 7)) - 132
    return (np.where(code & 128, -size, size) / 32768).astype(np.float32)


def _a_law() -> SoundArray:
    """The 256 levels of A-law, in [-1, 1]."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent = ((code >> 4) & 7).astype(np.int32)
    mantissa = ((code & 15).astype(np.int32) << 4) + 8
    size = np.where(exponent == 0, mantissa, mantissa + 256 << np.maximum(exponent - 1, 0))
    return (np.where(code & 128, size, -size) / 32768).astype(np.float32)


LEVELS = {"audio/pcmu": _mu_law(), "audio/pcma": _a_law()}


@dataclass(frozen=True)
class SoundCoding:
    """kind: audio/pcm, audio/pcmu or audio/pcma; rate: Hz."""

    kind: str
    rate: int

    def decoded(self, given: object) -> SoundArray:
        """Base64 -> samples (W,) float32 at ``rate``. Raises RequestError."""
        if not isinstance(given, str):
            raise wrong("audio is base64 of at most 15 MiB", "audio")
        data = strict_base64(given, MAX_AUDIO_BYTES, "audio")
        if self.kind in LEVELS:
            return LEVELS[self.kind][np.frombuffer(data, np.uint8)]
        if len(data) % 2:
            raise wrong("audio ends in half a sample; cut between samples", "audio")
        return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)

    def encoded(self, samples: SoundArray) -> str:
        """Samples (W,) at ``rate`` -> base64."""
        if self.kind not in LEVELS:
            return b64encode(to_pcm16(samples)).decode()
        levels = LEVELS[self.kind]
        order = np.argsort(levels, kind="stable")
        ascending = levels[order]
        nearest = np.searchsorted((ascending[1:] + ascending[:-1]) / 2, samples)
        return b64encode(order[nearest].astype(np.uint8).tobytes()).decode()


class SoundWriter:
    """One answer's sound, from the model's rate and speed to those of the line. tempo: its first step."""

    def __init__(self, coding: SoundCoding, speed: float = 1.0):
        self.coding = coding
        self.tempo = Tempo(speed)
        self._stream = None
        if coding.rate != OUTPUT_RATE_HZ:
            self._stream = soxr.ResampleStream(OUTPUT_RATE_HZ, coding.rate, 1, "float32")

    def push(self, samples: SoundArray) -> str:
        """Samples (W,) at 24 kHz -> base64, which may be empty."""
        samples = self.tempo.push(samples)
        if self._stream is not None:
            samples = self._stream.resample_chunk(samples)
        return self.coding.encoded(samples)

    def finish(self) -> str:
        """The rest, which may be empty."""
        samples = self.tempo.finish()
        if self._stream is not None:
            samples = self._stream.resample_chunk(samples, last=True)
        return self.coding.encoded(samples)
