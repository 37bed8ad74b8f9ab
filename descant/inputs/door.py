"""The door: the ONE way that bytes come in.

    source (path or bytes) -> size, kind of file, first bytes (``read``) -> decoder (image, audio, video) -> arrays

Every refusal is a MediaError whose ``code`` is one of:

    media.bad_source      neither a path nor bytes             media.missing         no such file
    media.url             a URL, or a damaged data URL         media.not_a_file      a directory, pipe or device
    media.unreadable      the system will not read it          media.empty           no bytes
    media.too_large       more bytes than the budget           media.unknown_format  first bytes of no allowed format
    media.wrong_kind      e.g. a picture where a sound was due
    image.decode_failed   truncated or damaged                 image.too_many_pixels decoded size over the budget
    image.aspect          one side over 200 times the other    image.bad_array       not (H, W, 3) uint8
    audio.decode_failed   damaged                              audio.truncated       ends before its header says
    audio.no_stream       the file holds no sound              audio.codec           a codec that is not allowed
    audio.empty           no samples                           audio.too_short       less than 3 mel frames
    audio.too_long        over 300 s                           audio.bad_rate        under 8 kHz or over 192 kHz
    audio.bad_channels    none, or more than eight              audio.not_finite      NaN or infinite samples
    audio.bad_array       not (W,) float or int16   audio.odd_bytes       half a sample of live sound
    audio.rate_changed    of live sound, midway                audio.late            live, and long after the pictures
    video.decode_failed   damaged                              video.truncated       ends before its header says
    video.no_stream       the file holds no pictures           video.codec           a codec that is not allowed
    video.no_frames       not one frame                        video.no_sound        sound asked for, none there
    video.too_long        over 600 s                           video.too_many_frames over the frame ceilings
    video.too_many_pixels frames over the budget               video.bad_rate        a clip with no positive rate
    video.bad_array       not (T, H, W, 3) uint8               video.bad_time        live, and time runs backwards
    video.size_changed    of live frames, midway       media.no_decoder      the decoder process cannot start
    image.too_costly      over the CPU or memory       audio.too_costly      that a decoder may take
    video.too_costly      the same

Decoders see only a buffer and the name of one format, so they can reach no other file, playlist or address.
"""

from __future__ import annotations

import re
from base64 import b64decode
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np

from descant.checks import is_finite_number
from descant.config import InputsConfig
from descant.errors import MediaError, shortened
from descant.files import read_file
from descant.inputs.audio_file import Samples, check_sound, decode_wav, to_mono
from descant.inputs.decoder import decode_apart
from descant.inputs.image_file import Pixels, check_size
from descant.inputs.limits import FORMATS, HEAD_BYTES, conversion, past_tags, sniff
from descant.inputs.wire import DecodeJob
from descant.types import Budget, Clip, MediaKind

_KIND_WORD: dict[MediaKind, str] = {"image": "a picture", "audio": "a sound", "video": "a video"}


MAX_FPS = 1000  # frames a second
MAX_PATH_CHARACTERS = 255  # of a longer text that is base64 throughout, it is the file itself that was given
BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")


@dataclass(frozen=True)
class Payload:
    """The bytes of one file, and the format that its first bytes announce (a name of limits.FORMATS)."""

    data: bytes
    format: str


def open_image(source: object, budget: Budget, inputs: InputsConfig | None = None) -> Pixels:
    """A picture (path or bytes) -> RGB (H, W, 3) uint8, upright, alpha on white; with inputs at the size that the model
    sees."""
    payload = read(source, "image", budget)
    pixels: Pixels = decode_apart(DecodeJob("image", payload.data, payload.format, budget, inputs))
    return pixels


def open_audio(source: object, rate: int, budget: Budget) -> Samples:
    """A sound (path or bytes), or the sound of a video -> mono (W,) float32 at ``rate`` Hz.

    Plain PCM needs no decoder: it is read here.
    """
    payload = read(source, "audio", budget)
    if payload.format == "wav" and (samples := decode_wav(payload.data, rate, budget)) is not None:
        return samples
    decoded: Samples = decode_apart(DecodeJob("audio", payload.data, payload.format, budget, rate=rate))
    return decoded


def open_video(source: object, inputs: InputsConfig, budget: Budget, *, with_sound: bool | None) -> Clip:
    """A video (path or bytes) -> its sampled frames at their final size, and its sound if asked for (None: if any)."""
    payload = read(source, "video", budget)
    clip: Clip = decode_apart(DecodeJob("video", payload.data, payload.format, budget, inputs, with_sound=with_sound))
    return clip


def read(source: object, kind: MediaKind, budget: Budget) -> Payload:
    """The bytes of a source after every check that needs no decoder."""
    limit = budget.bytes_for(kind)
    if isinstance(source, bytes | bytearray | memoryview):
        name, data = "the buffer", bytes(source)
        _check_size(name, len(data), limit)
    elif isinstance(source, str) and source.startswith("data:"):
        name, data = "the data URL", _decode_data_url(source, limit)
    elif isinstance(source, str) and len(source) > MAX_PATH_CHARACTERS and BASE64.fullmatch(source):
        name, data = "the base64 text", _decode_base64(source, limit)
    elif isinstance(source, str | Path):
        name, data = str(source), _read_file(source, limit)
    else:
        raise MediaError(
            "media.bad_source",
            f"{_KIND_WORD[kind]} was given as {type(source).__name__}; expected a path or the bytes of a file.",
        )
    if not data:
        raise MediaError("media.empty", f"{name} is empty; expected {_KIND_WORD[kind]}. Was it fully written?")
    found = sniff(data[:HEAD_BYTES])
    if found == "mp3":
        data = past_tags(data)
        found = sniff(data[:HEAD_BYTES]) or found
    allowed = FORMATS[kind]
    if found is None:
        raise MediaError(
            "media.unknown_format",
            f"{name} is no format that is read here, whatever its name says; {_KIND_WORD[kind]} is expected as "
            f"{', '.join(sorted(allowed.values()))}. {conversion(data[:HEAD_BYTES])}",
        )
    if found not in allowed:
        label = next(table[found] for table in FORMATS.values() if found in table)
        raise MediaError(
            "media.wrong_kind",
            f"{name} is a {label} file; {_KIND_WORD[kind]} is expected as {', '.join(sorted(allowed.values()))}. "
            "Is it passed as the right kind?",
        )
    return Payload(data, found)


def check_kind(source: object, kind: MediaKind) -> None:
    """Refuse a source that is not there, or no file of ``kind``; nothing is decoded."""
    read(source, kind, Budget())


def _decode_data_url(url: str, limit: int) -> bytes:
    """The bytes of ``data:TYPE;base64,DATA`` (RFC 2397); TYPE is ignored, as the first bytes tell the format."""
    head, comma, body = url.partition(",")
    if not comma or not head.endswith(";base64"):
        raise MediaError("media.url", f"{url[:40]!r} is no data URL of base64; write data:image/png;base64,....")
    return _decode_base64(body, limit)


def _decode_base64(text: str, limit: int) -> bytes:
    _check_size("the base64 text", len(text) * 3 // 4, limit)
    try:
        return b64decode(text, validate=True)
    except ValueError as error:
        raise MediaError("media.url", f"{text[:40]!r} ... is no base64 ({error}); encode the file again.") from None


def _read_file(source: str | Path, limit: int) -> bytes:
    if isinstance(source, str) and source.startswith("file://"):
        source = url2pathname(urlsplit(source).path)
    if isinstance(source, str) and "://" in source[:80]:
        raise MediaError("media.url", f"{source[:80]!r} is a URL; only local files are read. Download it first.")
    return read_file(
        source, limit, lambda fault, why: MediaError(f"media.{fault}", why), "Cut it shorter or compress it."
    )


def _check_size(name: str, size: int, limit: int) -> None:
    if size > limit:
        raise MediaError(
            "media.too_large", f"{name} has {size:,} bytes; at most {limit:,} are read. Cut it shorter or compress it."
        )


# ---------------------------------------------------------------- media that are decoded already


def check_pixels(pixels: np.ndarray, budget: Budget) -> Pixels:
    """An (H, W, 3) uint8 array in memory of its own order. Raises MediaError ("image.bad_array", and as for files)."""
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or pixels.size == 0:
        raise MediaError(
            "image.bad_array",
            f"the picture is an array {pixels.shape} of {pixels.dtype}; expected (H, W, 3) of uint8. Make it RGB.",
        )
    check_size(pixels.shape[1], pixels.shape[0], budget)
    return np.require(pixels, requirements=["C", "W"])


def check_samples(samples: np.ndarray, rate: int | None, target: int, budget: Budget) -> Samples:
    """Mono samples (W,) at ``rate`` Hz -> float32 at ``target`` Hz. Raises MediaError ("audio.bad_array", ...)."""
    if samples.ndim != 1 or (samples.dtype.kind != "f" and samples.dtype != np.int16):
        raise MediaError(
            "audio.bad_array",
            f"the sound is an array {samples.shape} of {samples.dtype}; expected mono (W,), int16 or float in [-1, 1].",
        )
    if rate is None:
        raise MediaError("audio.bad_rate", "the sound is an array without a rate. Give Audio(samples, rate=16000).")
    check_sound(1, len(samples), rate, budget)
    if samples.dtype == np.int16:
        samples = samples.astype(np.float32) / 32768
    return to_mono([samples[None].astype(np.float32, copy=False)], rate, target, budget)


def check_clip(clip: Clip, rate: int, budget: Budget, *, with_sound: bool | None) -> Clip:
    """A decoded video, its sound at ``rate`` Hz. Raises MediaError ("video.bad_array", "video.no_sound", ...)."""
    frames: object = clip.frames
    if not isinstance(frames, np.ndarray):
        raise MediaError(
            "video.bad_array", f"the clip is {type(frames).__name__}; expected an array (T, H, W, 3) of uint8."
        )
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or 0 in frames.shape[1:]:
        raise MediaError(
            "video.bad_array", f"the clip is an array {frames.shape} of {frames.dtype}; expected (T, H, W, 3) of uint8."
        )
    check_clip_price(frames, clip.fps, budget)
    if with_sound is False or (with_sound is None and clip.sound is None):
        return Clip(clip.frames, clip.fps)
    if clip.sound is None:
        raise MediaError("video.no_sound", "the clip has no sound but use_audio was asked for. Set use_audio=False.")
    sound: object = clip.sound
    if not isinstance(sound, np.ndarray):
        raise MediaError(
            "audio.bad_array", f"the clip's sound is {type(sound).__name__}; expected an array (W,) of float."
        )
    return Clip(frames, clip.fps, check_samples(sound, rate, rate, budget))


def check_clip_price(frames: Pixels, fps: float, budget: Budget) -> None:
    """Refuse frames (T, H, W, 3) that are too many or too large: "video.too_many_pixels", "video.too_long", ..."""
    if len(frames) and frames.shape[1] * frames.shape[2] > budget.frame_pixels:
        raise MediaError(
            "video.too_many_pixels",
            f"the clip has frames of {frames.shape[2]} x {frames.shape[1]}; at most {budget.frame_pixels:,} pixels are "
            "seen. Shrink it.",
        )
    if len(frames) > budget.frames:
        raise MediaError(
            "video.too_many_frames",
            f"the clip has {len(frames):,} frames; at most {budget.frames:,} are seen. Lower its frame rate.",
        )
    if not is_finite_number(fps) or not 0 < fps <= MAX_FPS:
        raise MediaError(
            "video.bad_rate", f"the clip has {shortened(fps)} frames a second; expected 0 to {MAX_FPS}, not 0."
        )
    if len(frames) > fps * budget.video_s:
        raise MediaError(
            "video.too_long", f"the clip lasts over {budget.video_s:g} s; no more is seen. Cut it into shorter pieces."
        )
