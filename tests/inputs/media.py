"""Media for tests, made on the fly with PyAV and Pillow; every function returns the bytes of a file."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

from descant.config import AudioConfig, DecoderConfig, MediaIds, ThinkerConfig, VisionConfig
from descant.export.tokenizer import byte_tokenizer
from descant.inputs import tokenizer as names
from descant.inputs.tokenizer import Tokenizer

Array = npt.NDArray[Any]


def nano_tokenizer() -> Tokenizer:
    return Tokenizer(byte_tokenizer(["system", "user", "assistant"]))


def media_ids(tokenizer: Tokenizer) -> MediaIds:
    return MediaIds(
        audio=tokenizer.special(names.AUDIO),
        image=tokenizer.special(names.IMAGE),
        video=tokenizer.special(names.VIDEO),
        audio_start=tokenizer.special(names.AUDIO_BOS),
        audio_end=tokenizer.special(names.AUDIO_EOS),
        vision_start=tokenizer.special(names.VISION_BOS),
        vision_end=tokenizer.special(names.VISION_EOS),
    )


def thinker_config(tokenizer: Tokenizer) -> ThinkerConfig:
    """A small Thinker whose encoders have the official geometry: blocks of 2 s, merges of 2 x 2 patches."""
    body = DecoderConfig(tokenizer.vocab_size, 16, 16, 24, 1, 2, 1, 8, (2, 1, 1), rope_theta=1e4)
    audio, vision = AudioConfig(128, 1, 2, 16, 16, 16), VisionConfig(1, 16, 2, 16, 16, (0,))
    return ThinkerConfig(body, audio, vision, media_ids(tokenizer), pad_id=0, eos_id=1)


def tone(seconds: float, rate: int, *, hz: float = 440.0) -> npt.NDArray[np.float32]:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def noise(count: int, *, seed: int = 0) -> npt.NDArray[np.float32]:
    return (0.1 * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)


def picture(height: int, width: int, *, seed: int = 0) -> npt.NDArray[np.uint8]:
    """A gradient with noise: smooth enough to be like a photograph, rough enough for resizing to matter."""
    rows, columns = np.mgrid[0:height, 0:width]
    base = np.stack([255 * rows / max(1, height - 1), 255 * columns / max(1, width - 1), (rows * columns) % 256], -1)
    rough = np.random.default_rng(seed).integers(-40, 40, base.shape)
    return np.clip(base + rough, 0, 255).astype(np.uint8)


def image_file(image: Image.Image | Array, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, form, **options)
    return buffer.getvalue()


def wav(samples: Array, rate: int) -> bytes:
    """A WAV of int16, uint8, int32, float32 or float64 samples, (W,) or (W, C)."""
    coding = 3 if samples.dtype.kind == "f" else 1
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    width = samples.dtype.itemsize
    body = samples.astype(samples.dtype.newbyteorder("<")).tobytes()
    fmt = struct.pack("<HHIIHH", coding, channels, rate, (rate * channels * width) % 2**32, channels * width, 8 * width)
    chunks = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


def _mux_sound(container: Any, stream: Any, samples: Array, rate: int, layout: str, delay: float) -> None:
    planes = np.stack([samples] * (1 if layout == "mono" else 2))
    frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, round(delay * rate), Fraction(1, rate)
    resampler = av.AudioResampler(format=stream.format, layout=layout, rate=rate, frame_size=stream.frame_size or None)
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        container.mux(stream.encode(part))
    container.mux(stream.encode(None))


def sound_file(form: str, codec: str, samples: Array, rate: int, *, layout: str = "mono") -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as container:
        _mux_sound(container, container.add_stream(codec, rate=rate, layout=layout), samples, rate, layout, 0.0)
    return buffer.getvalue()


def video_file(
    frames: Array,
    rate: float,
    *,
    form: str = "mp4",
    codec: str = "mpeg4",
    sound: Array | None = None,
    delay: float = 0.0,
    times: list[float] | None = None,
    rotation: int = 0,
) -> bytes:
    """frames (T, H, W, 3) uint8; sound (W,) at 48 kHz starting at ``delay`` s; times: seconds."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as container:
        video: Any = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1001))
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = "yuv420p"
        video.bit_rate = 4_000_000
        if rotation:
            video.set_display_rotation(rotation)
        if times is not None:
            video.codec_context.time_base = Fraction(1, 1000)
        audio = (
            container.add_stream("libopus" if form == "webm" else "aac", rate=48000, layout="mono")
            if sound is not None
            else None
        )
        for place, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(times[place] * 1000), Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None and sound is not None:
            _mux_sound(container, audio, sound, 48000, "mono", delay)
    return buffer.getvalue()


def grey_frames(levels: list[int], height: int = 64, width: int = 96) -> npt.NDArray[np.uint8]:
    """One flat grey frame per level."""
    return np.stack([np.full((height, width, 3), level, np.uint8) for level in levels])
