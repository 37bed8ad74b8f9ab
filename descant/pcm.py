"""Sound as 16-bit PCM, and the header that makes a WAV file of it."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # numpy is heavy, and `descant --help` must not pay for it
    import numpy as np

HEADER_BYTES = 44  # bytes of a canonical RIFF/WAVE header of 16-bit PCM
ENDLESS_BYTES = 0xFFFFFFFF - HEADER_BYTES  # what a header says when nobody can know yet (players read on to the end)


def wav_header(rate: int, data_bytes: int) -> bytes:
    """The 44 bytes before 16-bit mono PCM at ``rate`` Hz."""
    riff = struct.pack("<4sI4s", b"RIFF", HEADER_BYTES - 8 + data_bytes, b"WAVE")
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16)
    return riff + fmt + struct.pack("<4sI", b"data", data_bytes)


def to_pcm16(samples: np.ndarray) -> bytes:
    """Float samples (W,) in [-1, 1] -> little-endian 16-bit PCM; what is louder is clipped."""
    import numpy as np

    return np.asarray(np.clip(samples, -1.0, 1.0) * 32767.0).round().astype("<i2").tobytes()
