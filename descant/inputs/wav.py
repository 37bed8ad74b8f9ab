"""WAV without FFmpeg: PCM of 8 to 32 bits and floats, by the chunk list of RIFF.

Axes: C channels, W samples.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from descant.errors import MediaError

_EXTENSIBLE = 0xFFFE  # the true coding stands in the extension; else 1: integers, 3: floats
_UNKNOWN_SIZE = 0xFFFFFFFF  # what a writer puts that could not seek back


def read_wav(data: bytes) -> tuple[npt.NDArray[np.float32], int] | None:
    """(samples (C, W) float32 in [-1, 1], rate in Hz); None for codings that are FFmpeg's business (mu-law, ADPCM).

    Raises MediaError: "audio.decode_failed", "audio.truncated", "audio.bad_channels", "audio.bad_rate".
    """
    chunks = _chunks(data)
    if b"fmt " not in chunks or b"data" not in chunks or len(chunks[b"fmt "]) < 16:
        raise MediaError("audio.decode_failed", "the WAV file has no whole 'fmt ' and 'data' chunks. Export it again.")
    fmt, body = chunks[b"fmt "], chunks[b"data"]
    coding, channels, rate, _, align, bits = struct.unpack_from("<HHIIHH", fmt)
    if coding == _EXTENSIBLE and len(fmt) >= 26:
        (coding,) = struct.unpack_from("<H", fmt, 24)
    if channels == 0:
        raise MediaError("audio.bad_channels", "the WAV file has 0 channels; expected 1 or 2. Export it again.")
    if bits % 8 or align != channels * bits // 8 or not align:
        return None  # a packed coding
    flat = _floats(body[: len(body) // align * align], coding, bits)
    return None if flat is None else (np.ascontiguousarray(flat.reshape(-1, channels).T), rate)


def _chunks(data: bytes) -> dict[bytes, memoryview]:
    """The first chunk of each name. Raises MediaError ("audio.truncated") when one is longer than the file."""
    view, place = memoryview(data), 12
    chunks: dict[bytes, memoryview] = {}
    while place + 8 <= len(data):
        name, (size,) = bytes(view[place : place + 4]), struct.unpack_from("<I", data, place + 4)
        place += 8
        if name == b"data" and size == _UNKNOWN_SIZE:
            size = len(data) - place
        if size > len(data) - place:
            raise MediaError(
                "audio.truncated",
                f"the WAV file promises {size:,} bytes of {name.decode('latin-1').strip()!r} and holds "
                f"{len(data) - place:,}; it seems cut off. Copy or record it again.",
            )
        chunks.setdefault(name, view[place : place + size])
        place += size + size % 2  # chunks start at even places
    return chunks


def _floats(body: memoryview, coding: int, bits: int) -> npt.NDArray[np.float32] | None:
    """The numbers of a data chunk in [-1, 1]; None for a coding that is not read here."""
    match coding, bits:
        case (1, 8):  # unsigned, silence at 128
            return (np.frombuffer(body, np.uint8).astype(np.float32) - 128) / np.float32(2**7)
        case (1, 16):
            return np.frombuffer(body, "<i2").astype(np.float32) / np.float32(2**15)
        case (1, 24):
            wide = np.zeros((len(body) // 3, 4), dtype=np.uint8)
            wide[:, 1:] = np.frombuffer(body, np.uint8).reshape(-1, 3)  # little-endian: the low byte stays 0
            return wide.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)
        case (1, 32):
            return np.frombuffer(body, "<i4").astype(np.float32) / np.float32(2**31)
        case (3, 32):
            return np.frombuffer(body, "<f4").astype(np.float32)
        case (3, 64):
            return np.frombuffer(body, "<f8").astype(np.float32)
    return None
