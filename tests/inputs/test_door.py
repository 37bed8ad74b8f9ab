"""Bad input: each is one MediaError with a stable code, and good input is read as before afterwards."""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from descant.config import InputsConfig
from descant.errors import MediaError
from descant.inputs import door
from descant.inputs.prompt import PromptBuilder
from descant.types import Audio, Budget, Clip, Image, MediaKind, user
from tests.inputs import media

INPUTS = InputsConfig()
BUDGET = Budget()
TONE = media.tone(1.0, 16000)
FRAMES = media.grey_frames(list(range(0, 200, 10)))


def open_media(source: object, kind: MediaKind, *, with_sound: bool = False, budget: Budget = BUDGET) -> object:
    if kind == "image":
        return door.open_image(source, budget)
    if kind == "audio":
        return door.open_audio(source, 16000, budget)
    return door.open_video(source, INPUTS, budget, with_sound=with_sound)


def code_of(source: object, kind: MediaKind, *, with_sound: bool = False, budget: Budget = BUDGET) -> str:
    with pytest.raises(MediaError) as caught:
        open_media(source, kind, with_sound=with_sound, budget=budget)
    assert len(str(caught.value)) > 20
    assert not re.search("0x[0-9a-f]{6,}|Traceback|<_io|av\\.error", str(caught.value))
    return caught.value.code


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels: a decompression bomb's first hundred bytes."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("kind", ["image", "audio", "video"])
def test_what_is_no_file(kind: MediaKind, tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("this is not a picture")
    os.mkfifo(tmp_path / "pipe")
    assert code_of(tmp_path / "gone.png", kind) == "media.missing"
    assert code_of(str(tmp_path / "gone.png"), kind) == "media.missing"
    assert code_of(tmp_path, kind) == "media.not_a_file"
    assert code_of(tmp_path / "pipe", kind) == "media.not_a_file"
    assert code_of(tmp_path / "empty.png", kind) == "media.empty"
    assert code_of(b"", kind) == "media.empty"
    assert code_of(tmp_path / "text.png", kind) == "media.unknown_format"
    assert code_of("a\0b", kind) == "media.unreadable"
    assert code_of("x." * 2500, kind) == "media.unreadable"
    assert code_of("http://example.com/a.png", kind) == "media.url"
    assert code_of("file:///etc/passwd", kind) == "media.unknown_format"
    assert code_of(3, kind) == "media.bad_source"
    assert code_of(None, kind) == "media.bad_source"


def test_files_over_the_budget_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.wav"
    with path.open("wb") as file:
        file.truncate(10 << 40)  # sparse: reading it would not end
    assert code_of(path, "audio") == "media.too_large"
    assert code_of(bytes(101), "image", budget=Budget(image_bytes=100)) == "media.too_large"


def test_kinds_are_told_by_first_bytes_and_not_by_name(tmp_path: Path) -> None:
    picture, sound, video = media.image_file(FRAMES[0]), media.wav(TONE, 16000), media.video_file(FRAMES, 10)
    assert code_of(picture, "audio") == code_of(picture, "video") == "media.wrong_kind"
    assert code_of(sound, "image") == code_of(sound, "video") == "media.wrong_kind"
    assert code_of(video, "image") == "media.wrong_kind"
    (tmp_path / "really.png").write_bytes(sound)
    assert code_of(tmp_path / "really.png", "image") == "media.wrong_kind"
    assert np.array_equal(door.open_audio(tmp_path / "really.png", 16000, BUDGET), TONE)


REFUSED = [
    b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    b"ffconcat version 1.0\nfile /etc/passwd\n",
    b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    b"%PDF-1.7\n", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"SIMPLE  =" + bytes(60),
    b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n", b"\0\0\0\x18ftypheic" + bytes(40),
    b"PK\x03\x04", b"\x80\x04.",
]  # fmt: skip


@pytest.mark.parametrize("data", REFUSED, ids=lambda data: repr(data[:8]))
def test_other_formats_never_reach_a_decoder(data: bytes) -> None:
    assert {code_of(data, kind) for kind in ("image", "audio", "video")} == {"media.unknown_format"}


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
def test_truncated_pictures(form: str) -> None:
    data = media.image_file(media.picture(64, 80), form)
    for sixteenths in range(1, 16):
        assert code_of(data[: len(data) * sixteenths // 16], "image") in ("image.decode_failed", "media.unknown_format")


def test_pictures_of_impossible_size() -> None:
    assert code_of(png_header(1, 100_000), "image") == code_of(png_header(100_000, 1), "image") == "image.aspect"
    assert code_of(png_header(65_535, 65_535), "image") == "image.too_many_pixels"
    assert code_of(png_header(20_000, 2_000), "image") == "image.too_many_pixels"  # one side
    assert code_of(png_header(9_000, 9_000), "image") == "image.too_many_pixels"
    assert code_of(png_header(0, 10), "image") in ("image.decode_failed", "image.aspect")
    assert code_of(media.image_file(np.zeros((1, 300, 3), np.uint8)), "image") == "image.aspect"


def test_arrays_that_are_no_picture_sound_or_clip() -> None:
    for pixels in (np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(MediaError, match="expected \\(H, W, 3\\)"):
            door.check_pixels(pixels, Budget())
    for samples, rate, code in (
        (np.zeros((2, 9), np.float32), 16000, "audio.bad_array"),
        (np.zeros(9, np.int32), 16000, "audio.bad_array"),
        (TONE, None, "audio.bad_rate"),
        (TONE, 1, "audio.bad_rate"),
        (TONE * np.nan, 16000, "audio.not_finite"),
        (TONE[:0], 16000, "audio.empty"),
    ):
        with pytest.raises(MediaError) as caught:
            door.check_samples(samples, rate, 16000, BUDGET)
        assert caught.value.code == code
    for clip, with_sound, code in (
        (Clip(FRAMES[0], 2.0), False, "video.bad_array"),
        (Clip(FRAMES, float("nan")), False, "video.bad_rate"),
        (Clip(FRAMES, 0.0), False, "video.bad_rate"),
        (Clip(FRAMES, 2.0), True, "video.no_sound"),
        (Clip(FRAMES[:, :0], 2.0), False, "video.bad_array"),
        (Clip(FRAMES, 2.0, np.full(16000, np.nan, np.float32)), True, "audio.not_finite"),
    ):
        with pytest.raises(MediaError) as caught:
            door.check_clip(clip, 16000, BUDGET, with_sound=with_sound)
        assert caught.value.code == code


# ---------------------------------------------------------------- sounds

NAN = media.tone(1.0, 16000)
NAN[500] = np.nan
SOUNDS: dict[str, tuple[Callable[[], bytes], str]] = {
    "1 Hz": (lambda: media.wav(TONE, 1), "audio.bad_rate"),
    "0 Hz": (lambda: media.wav(TONE, 0), "audio.bad_rate"),
    "4 GHz": (lambda: media.wav(TONE, 2**32 - 1), "audio.bad_rate"),
    "NaN": (lambda: media.wav(NAN, 16000), "audio.not_finite"),
    "infinite": (lambda: media.wav(NAN * 0 + np.inf, 16000), "audio.not_finite"),
    "no samples": (lambda: media.wav(TONE[:0], 16000), "audio.empty"),
    "9 channels": (lambda: media.wav(np.zeros((99, 9), np.int16), 16000), "audio.bad_channels"),
    "0 channels": (lambda: media.wav(np.zeros((99, 0), np.int16), 16000), "audio.bad_channels"),
    "301 s": (lambda: media.wav(np.zeros(301 * 8000, np.int16), 8000), "audio.too_long"),
    "301 s of FLAC": (
        lambda: media.sound_file("flac", "flac", np.zeros(301 * 8000, np.float32), 8000),
        "audio.too_long",
    ),
    "cut WAV": (lambda: media.wav(TONE, 16000)[:-100], "audio.truncated"),
    "cut FLAC": (lambda: media.sound_file("flac", "flac", TONE, 16000)[:-2000], "audio.decode_failed"),
    "cut M4A": (lambda: media.sound_file("ipod", "aac", TONE, 16000)[:2000], "audio.truncated"),
    "cut Matroska": (lambda: media.sound_file("matroska", "aac", media.noise(48000), 16000)[:-6000], "audio.truncated"),
    "header alone": (lambda: media.wav(TONE, 16000)[:36], "audio.decode_failed"),
    "no fmt chunk": (lambda: media.wav(TONE, 16000)[:12] + b"data\4\0\0\0abcd", "audio.decode_failed"),
    "a video without sound": (lambda: media.video_file(FRAMES, 10), "audio.no_stream"),
}


@pytest.mark.parametrize("case", SOUNDS)
def test_bad_sounds(case: str) -> None:
    make, code = SOUNDS[case]
    assert code_of(make(), "audio") == code


def test_the_300th_second_is_heard_and_no_more() -> None:
    assert len(door.open_audio(media.wav(np.zeros(300 * 8000, np.int16), 8000), 16000, BUDGET)) == 300 * 16000
    assert code_of(media.wav(np.zeros(300 * 8000 + 1, np.int16), 8000), "audio") == "audio.too_long"


def test_a_sound_too_short_for_one_token() -> None:
    tokenizer = media.nano_tokenizer()
    builder = PromptBuilder(tokenizer, INPUTS, media.thinker_config(tokenizer))
    with pytest.raises(MediaError) as caught:
        builder.build([user(Audio(TONE[:320], 16000))], speech=False)
    assert caught.value.code == "audio.too_short"
    assert len(builder.build([user(Audio(TONE[:321], 16000))], speech=False).spans) == 1


# ---------------------------------------------------------------- videos


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


BIG = np.zeros((4, 400, 400, 3), np.uint8)
VIDEOS: dict[str, tuple[Callable[[], bytes], dict[str, object], str]] = {
    "no pictures": (lambda: media.sound_file("mp4", "aac", TONE, 16000), {}, "video.no_stream"),
    "no frames": (
        lambda: media.video_file(FRAMES[:0], 10, form="matroska", sound=media.tone(1.0, 48000)),
        {},
        "video.no_frames",
    ),
    "no sound": (lambda: media.video_file(FRAMES, 10), {"with_sound": True}, "video.no_sound"),
    "cut MP4": (lambda: media.video_file(FRAMES, 10)[:1000], {}, "video.truncated"),
    "cut Matroska": (lambda: cut(media.video_file(FRAMES, 10, form="matroska")), {}, "video.truncated"),
    "large frames": (
        lambda: media.video_file(BIG, 10),
        {"budget": Budget(frame_pixels=100_000)},
        "video.too_many_pixels",
    ),
    "many frames": (lambda: media.video_file(FRAMES, 10), {"budget": Budget(frames=10)}, "video.too_many_frames"),
    "long": (lambda: media.video_file(FRAMES, 10), {"budget": Budget(video_s=1.0)}, "video.too_long"),
    "foreign codec": (lambda: media.video_file(FRAMES, 25, form="matroska", codec="ffv1"), {}, "video.codec"),
    "long sound": (
        lambda: media.video_file(FRAMES, 10, sound=media.tone(2.0, 48000)),
        {"with_sound": True, "budget": Budget(audio_s=1.5)},
        "audio.too_long",
    ),
}


@pytest.mark.parametrize("case", VIDEOS)
def test_bad_videos(case: str) -> None:
    make, options, code = VIDEOS[case]
    assert code_of(make(), "video", **options) == code  # type: ignore[arg-type]


def test_a_video_over_the_frame_ceiling_is_refused_and_not_thinned() -> None:
    few = InputsConfig(max_frames=8)
    with pytest.raises(MediaError) as caught:
        door.open_video(media.video_file(FRAMES, 4), few, BUDGET, with_sound=False)
    assert caught.value.code == "video.too_many_frames"
    assert len(door.open_video(media.video_file(FRAMES[:16], 4), few, BUDGET, with_sound=False).frames) == 8


# ---------------------------------------------------------------- anything

CODINGS = (("flac", "flac"), ("mp3", "libmp3lame"), ("ipod", "aac"))
SEEDS: dict[MediaKind, list[bytes]] = {
    "image": [media.image_file(FRAMES[0], form) for form in ("PNG", "JPEG", "WEBP", "GIF")],
    "audio": [media.wav(TONE[:2000], 16000)]
    + [media.sound_file(form, codec, TONE[:8000], 16000) for form, codec in CODINGS],
    "video": [media.video_file(FRAMES[:6], 10, form=form) for form in ("mp4", "matroska")],
}  # fmt: skip


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data(), kind=st.sampled_from(["image", "audio", "video"]))
def test_mutated_files_raise_one_exception_type_or_decode(data: st.DataObject, kind: MediaKind) -> None:
    seed = bytearray(data.draw(st.sampled_from(SEEDS[kind])))
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, len(seed) - 1), st.integers(0, 255)), max_size=8)):
        seed[place] = value
    cut = data.draw(st.integers(0, len(seed)))
    code = outcome(bytes(seed[:cut] if cut % 2 else seed), kind)
    assert code is None or code.split(".")[0] in ("media", kind)


HEADS = [b"", b"RIFF\0\0\0\0WAVE", b"fLaC", b"ID3", b"\0\0\0\x20ftypisom", b"\x1aE\xdf\xa3", b"GIF89a", b"\xff\xf1"]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(head=st.sampled_from(HEADS), rest=st.binary(max_size=200), kind=st.sampled_from(["image", "audio", "video"]))
def test_noise_raises_one_exception_type(head: bytes, rest: bytes, kind: MediaKind) -> None:
    outcome(head + rest, kind)


def outcome(data: bytes, kind: MediaKind) -> str | None:
    """The code of the refusal, or None; any other exception is a failure."""
    try:
        open_media(data, kind)
    except MediaError as error:
        return error.code
    return None


def test_a_refusal_leaves_the_next_request_as_it_was() -> None:
    tokenizer = media.nano_tokenizer()
    builder = PromptBuilder(tokenizer, INPUTS, media.thinker_config(tokenizer))
    good = [user("what?", Image(media.image_file(FRAMES[3])), Audio(media.wav(TONE, 16000)))]

    def run() -> list[object]:
        made = builder.build(good, speech=True)
        return [*made.ids.tolist(), *(span.source.digest for span in made.spans)]

    before = run()
    with pytest.raises(MediaError):
        builder.build([user(Audio(b"nonsense"))], speech=True)
    assert run() == before
