"""WAV without FFmpeg: PCM of 8 to 32 bits and floats, by the chunk list of RIFF.

Axes: C channels, W samples.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from descant.errors import MediaError

_EXTENSIBLE = 0xFFFE  # the true coding stands in the extension; else 1: integers, 3: floats
# Bytes: writers that cannot seek back put 0, or one of several sizes near 2 or 4 GiB, which no file here can have.
_PLACEHOLDER_BYTES = 0x7FFF0000
_MAX_CHUNKS = 1000  # before the sound; more are no recording
_BLOCK_FRAMES = 1 << 18  # samples a channel that become numbers at a time
_CODINGS = {(1, 8), (1, 16), (1, 24), (1, 32), (3, 32), (3, 64)}  # (coding, bits) that are read here


@dataclass(frozen=True)
class WavFile:
    """A WAV file by its header. rate: in Hz; count: samples a channel; body: the bytes of the data chunk."""

    channels: int
    rate: int
    count: int
    coding: int
    bits: int
    body: memoryview = field(repr=False)

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        """The samples (C, W) float32 in [-1, 1], some at a time."""
        frame = self.channels * self.bits // 8
        for start in range(0, self.count, _BLOCK_FRAMES):
            part = self.body[start * frame : min(start + _BLOCK_FRAMES, self.count) * frame]
            yield floats(part, self.coding, self.bits).reshape(-1, self.channels).T


def read_wav(data: bytes) -> WavFile | None:
    """The header of a WAV file; None for codings that are FFmpeg's business (mu-law, ADPCM, RF64).

    Raises MediaError: "audio.decode_failed", "audio.truncated", "audio.bad_channels".
    """
    if not data.startswith(b"RIFF"):
        return None
    fmt, body = _chunks(memoryview(data))
    if fmt is None or body is None or len(fmt) < 16:
        raise MediaError("audio.decode_failed", "the WAV file has no whole 'fmt ' and 'data' chunks. Export it again.")
    coding, channels, rate, _, align, bits = struct.unpack_from("<HHIIHH", fmt)
    if coding == _EXTENSIBLE and len(fmt) >= 26:
        (coding,) = struct.unpack_from("<H", fmt, 24)
    if channels == 0:
        raise MediaError("audio.bad_channels", "the WAV file has 0 channels; expected 1 or 2. Export it again.")
    if (coding, bits) not in _CODINGS or align != channels * bits // 8:
        return None
    return WavFile(channels, rate, len(body) // align, coding, bits, body)


def _chunks(view: memoryview) -> tuple[memoryview | None, memoryview | None]:
    """The "fmt " and the "data" chunk; what comes after both is not looked at (tags that are no chunks, for one).

    Raises MediaError: "audio.truncated" when one is longer than the file, "audio.decode_failed".
    """
    fmt: memoryview | None = None
    place = 12
    for _ in range(_MAX_CHUNKS):
        if place + 8 > len(view):
            return fmt, None
        name = bytes(view[place : place + 4])
        (size,) = struct.unpack_from("<I", view, place + 4)
        place += 8
        left = len(view) - place
        if name == b"data" and _is_placeholder(size, view[place:]):
            size = left
        if size > left:
            raise MediaError(
                "audio.truncated",
                f"the WAV file promises {size:,} bytes of {name.decode('latin-1').strip()!r} and holds {left:,}; "
                "it seems cut off. Copy or record it again.",
            )
        if name == b"data":
            return fmt, view[place : place + size]
        if name == b"fmt " and fmt is None:
            fmt = view[place : place + size]
        place += size + size % 2  # chunks start at even places
    raise MediaError(
        "audio.decode_failed", f"the WAV file has over {_MAX_CHUNKS:,} chunks before its sound. Export it again."
    )


def _is_placeholder(size: int, rest: memoryview) -> bool:
    """True for a size of the data chunk that its writer never filled in; then the data reaches to the end."""
    if size or len(rest) < 8:
        return size >= _PLACEHOLDER_BYTES
    (following,) = struct.unpack_from("<I", rest, 4)
    is_chunk = bytes(rest[:4]).decode("latin-1").isprintable() and following <= len(rest) - 8
    return not is_chunk


def floats(body: memoryview, coding: int, bits: int) -> npt.NDArray[np.float32]:
    """The numbers of a data chunk in [-1, 1], (N,) float32."""
    match coding, bits:
        case (1, 8):  # unsigned, silence at 128
            return (np.frombuffer(body, np.uint8).astype(np.float32) - 128) / np.float32(2**7)
        case (1, 24):
            wide = np.zeros((len(body) // 3, 4), dtype=np.uint8)
            wide[:, 1:] = np.frombuffer(body, np.uint8).reshape(-1, 3)  # little-endian: the low byte stays 0
            return wide.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)
        case (1, _):
            return np.frombuffer(body, f"<i{bits // 8}").astype(np.float32) / np.float32(2 ** (bits - 1))
        case _:
            return np.frombuffer(body, f"<f{bits // 8}").astype(np.float32)
