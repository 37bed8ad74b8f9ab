"""One small file of every kind that the decoders read: what fuzzing begins from, and what must not need an import."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from PIL import Image

from descant.config import InputsConfig
from descant.inputs.limits import HEAD_BYTES, sniff
from descant.inputs.wire import DecodeJob
from descant.types import Budget, MediaKind
from tests.inputs import media

PICTURES = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"]
MODES = ["1", "L", "LA", "P", "RGBA", "I;16"]
SOUNDS = [
    ("wav", "pcm_mulaw"), ("aiff", "pcm_s16be"), ("flac", "flac"), ("mp3", "libmp3lame"), ("ogg", "libopus"),
    ("webm", "libopus"), ("adts", "aac"), ("ipod", "aac"), ("au", "pcm_s16be"), ("caf", "pcm_s16le"),
]  # fmt: skip
VIDEOS = [("mp4", "mpeg4"), ("mov", "libx264"), ("webm", "libvpx"), ("matroska", "libx264"), ("avi", "mpeg4")]


@cache
def corpus() -> dict[str, tuple[MediaKind, bytes]]:
    """Name -> kind of medium and the file."""
    pixels = media.picture(24, 40)
    files: dict[str, tuple[MediaKind, bytes]] = {}
    for form in PICTURES:
        files[f"picture {form}"] = "image", media.image_file(pixels, form)
    for mode in MODES:
        shown = Image.fromarray(pixels).convert("L" if mode == "I;16" else mode)
        files[f"picture PNG {mode}"] = "image", media.image_file(shown.convert("I;16") if mode == "I;16" else shown)
    files["picture JPEG, progressive, turned"] = "image", turned(pixels)
    files["picture GIF, animated"] = "image", animated()
    for form, codec in SOUNDS:
        rate = 48000 if codec == "libopus" else 16000
        files[f"sound {form} {codec}"] = "audio", media.sound_file(form, codec, media.tone(0.2, rate), rate)
    for form, codec in VIDEOS:
        sound = None if form == "avi" else media.tone(0.5, 48000)
        frames = media.video_file(media.grey_frames([0, 50, 100, 150]), 8, form=form, codec=codec, sound=sound)
        files[f"video {form} {codec}"] = "video", frames
    times = [0.0, 0.1, 0.2, 1.5, 4.0]
    still = media.video_file(media.grey_frames([0, 1, 2, 3, 4]), 10, form="matroska", codec="libx264", times=times)
    files["video matroska, uneven"] = "video", still
    return files


def turned(pixels: np.ndarray) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return media.image_file(pixels, "JPEG", progressive=True, exif=exif)


def animated() -> bytes:
    frames = [Image.new("RGB", (30, 30), colour) for colour in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def jobs() -> dict[str, DecodeJob]:
    """The files as jobs for the decoder process."""
    made = {}
    for name, (kind, data) in corpus().items():
        form = sniff(data[:HEAD_BYTES])
        assert form is not None, name
        made[name] = DecodeJob(kind, data, form, Budget(), InputsConfig(), 16000, None)
    return made
