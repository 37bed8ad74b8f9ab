"""Sound on its way out: chunks of samples -> bytes of the format that a client asked for, as they come."""

from __future__ import annotations

import io
from typing import Literal

import av
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream

from descant.config import OUTPUT_RATE_HZ
from descant.pcm import ENDLESS_BYTES, to_pcm16, wav_header
from descant.server.tempo import Tempo

SoundFormat = Literal["wav", "pcm16", "pcm", "mp3", "flac", "opus", "aac"]
SOUND_FORMATS: tuple[SoundFormat, ...] = ("wav", "pcm16", "pcm", "mp3", "flac", "opus", "aac")
MEDIA_TYPES: dict[SoundFormat, str] = {
    "wav": "audio/wav",
    "pcm16": "audio/pcm",
    "pcm": "audio/pcm",
    "mp3": "audio/mpeg",
    "flac": "audio/flac",
    "opus": "audio/ogg",
    "aac": "audio/aac",
}
# format -> FFmpeg's container and encoder, and the rates that the encoder takes (Hz; None: any)
_CODED: dict[SoundFormat, tuple[str, str, int]] = {
    "mp3": ("mp3", "libmp3lame", OUTPUT_RATE_HZ),
    "flac": ("flac", "flac", OUTPUT_RATE_HZ),
    "opus": ("ogg", "libopus", OUTPUT_RATE_HZ),
    "aac": ("adts", "aac", OUTPUT_RATE_HZ),
}


OPTIONS: dict[SoundFormat, dict[str, str]] = {"opus": {"page_duration": "20000"}}  # microseconds: else a second


class SoundEncoder:
    """One stream of sound in one format. ``push`` gives the bytes that are ready; ``finish`` the rest. speed: 0.25 to 4
    times as fast, at the same pitch."""

    def __init__(self, form: SoundFormat, speed: float = 1.0):
        self.form = form
        self._tempo = Tempo(speed)
        self._buffer = io.BytesIO()
        self._begun = False
        self._samples = 0
        if form in _CODED:
            container, codec, rate = _CODED[form]
            self._container = av.open(Growing(self._buffer), "w", format=container, options=OPTIONS.get(form, {}))
            self._stream: AudioStream = self._container.add_stream(codec, rate=rate, layout="mono")  # type: ignore[assignment]

    def push(self, samples: npt.NDArray[np.float32]) -> bytes:
        """The bytes that samples (W,) float32 at 24 kHz make ready."""
        return self._encode(self._tempo.push(samples))

    def _encode(self, samples: npt.NDArray[np.float32]) -> bytes:
        if not len(samples):
            return b""
        pcm = to_pcm16(samples)
        if self.form in _CODED:
            frame = av.AudioFrame.from_ndarray(np.frombuffer(pcm, "<i2")[None], format="s16", layout="mono")
            frame.sample_rate = OUTPUT_RATE_HZ
            frame.pts = self._samples
            self._samples += len(samples)
            self._container.mux(self._stream.encode(frame))
            return self._taken()
        head = b"" if self._begun or self.form != "wav" else wav_header(OUTPUT_RATE_HZ, ENDLESS_BYTES)
        self._begun = True
        return head + pcm

    def finish(self) -> bytes:
        """The end of the stream."""
        rest = self._encode(self._tempo.finish())
        if self.form not in _CODED:
            return rest if self._begun or self.form != "wav" else wav_header(OUTPUT_RATE_HZ, 0)
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return rest + self._taken()

    def _taken(self) -> bytes:
        data = self._buffer.getvalue()
        self._buffer.seek(0)
        self._buffer.truncate()
        return data


class Growing:
    """A file that only grows, as FFmpeg sees it: what was written is taken away, and nobody seeks back."""

    def __init__(self, buffer: io.BytesIO):
        self.buffer = buffer
        self.name = "sound"

    def write(self, data: bytes) -> int:
        return self.buffer.write(data)


def whole(samples: npt.NDArray[np.float32], form: SoundFormat) -> bytes:
    """A whole sound (W,) in one format; of WAV the header is true."""
    if form == "wav":
        pcm = to_pcm16(samples)
        return wav_header(OUTPUT_RATE_HZ, len(pcm)) + pcm
    encoder = SoundEncoder(form)
    return encoder.push(samples) + encoder.finish()
