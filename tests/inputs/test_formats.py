"""Files as recorders, browsers and telephones make them: whole ones are read to their end, cut ones are told."""

from __future__ import annotations

import io
import struct
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image as Pillow

from descant.config import InputsConfig
from descant.errors import MediaError
from descant.inputs import door
from descant.inputs.structure import ends_early
from descant.types import Budget, Clip
from tests.inputs import media

RATE = 16000
TONE = media.tone(1.0, RATE)
INPUTS = InputsConfig()
SCENES = media.grey_frames([40, 90, 140, 190], 56, 56)
WHOLE = media.wav(TONE, RATE)
HEADER = 44  # bytes of a WAV header


def heard(data: bytes | str) -> np.ndarray:
    return door.open_audio(data, RATE, Budget())


def seen(data: bytes, *, with_sound: bool = False) -> Clip:
    return door.open_video(data, INPUTS, Budget(), with_sound=with_sound)


def code_of(act: Callable[[], object]) -> str:
    with pytest.raises(MediaError) as caught:
        act()
    return caught.value.code


# ---------------------------------------------------------------- WAV


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF - 36, 0xFFFFFFFF])
def test_wav_from_a_pipe_is_read_to_the_end(size: int) -> None:
    piped = WHOLE[:4] + struct.pack("<I", size) + WHOLE[8:40] + struct.pack("<I", size) + WHOLE[HEADER:]
    np.testing.assert_array_equal(heard(piped), heard(WHOLE))


@pytest.mark.parametrize("tag", [b"TAG" + bytes(125), b"x", b"LIST" + struct.pack("<I", 9**9), b"APETAGEX" + bytes(24)])
def test_what_stands_after_a_whole_sound_is_no_part_of_it(tag: bytes) -> None:
    np.testing.assert_array_equal(heard(WHOLE + tag), heard(WHOLE))


def test_an_empty_sound_before_another_chunk_is_empty_and_a_cut_one_is_cut() -> None:
    empty = WHOLE[:40] + struct.pack("<I", 0) + b"LIST" + struct.pack("<I", 4) + b"INFO"
    assert code_of(lambda: heard(empty)) == "audio.empty"
    assert code_of(lambda: heard(WHOLE[:-2])) == "audio.truncated"


def test_a_wav_is_priced_by_its_header() -> None:
    """Nothing of it becomes numbers before."""
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 255, RATE, RATE * 255, 255, 8)
    many = b"RIFF" + bytes(4) + b"WAVE" + fmt + struct.pack("<4sI", b"data", 2550) + bytes(2550)
    assert code_of(lambda: heard(many)) == "audio.bad_channels"
    chunks = b"RIFF" + bytes(4) + b"WAVE" + b"".join(b"c%03d" % n + bytes(4) for n in range(1000)) + WHOLE[12:]
    assert code_of(lambda: heard(chunks)) == "audio.decode_failed"


def test_channels_are_mixed_to_one() -> None:
    channels = np.stack([TONE, 0 * TONE, TONE, 0 * TONE, TONE, 0 * TONE], axis=1)
    mixed = heard(media.wav(channels, RATE))
    np.testing.assert_allclose(mixed, TONE / 2, atol=1e-4)


# ---------------------------------------------------------------- other sounds

SOUNDS = {
    "CAF": ("caf", "pcm_s16le"),
    "AU": ("au", "pcm_mulaw"),
    "W64": ("w64", "pcm_s16le"),
    "RF64": ("wav", "pcm_s16le"),
    "IMA ADPCM": ("wav", "adpcm_ima_wav"),
    "MS ADPCM": ("wav", "adpcm_ms"),
    "MP2": ("mp2", "mp2"),
    "ASF": ("asf", "libmp3lame"),
    "MPEG-TS": ("mpegts", "mp2"),
    "AC-3 in Matroska": ("matroska", "ac3"),
    "AVI": ("avi", "pcm_s16le"),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_sounds_that_people_have(name: str) -> None:
    form, codec = SOUNDS[name]
    rate = 48000 if codec in ("mp2", "ac3", "libmp3lame") else RATE
    data = media.sound_file(form, codec, media.tone(1.0, rate), rate)
    if name == "RF64":
        sizes = struct.pack("<4sIQQQI", b"ds64", 28, len(data) + 28, len(WHOLE) - HEADER, RATE, 0)
        data = b"RF64\xff\xff\xff\xffWAVE" + sizes + WHOLE[12:40] + b"\xff\xff\xff\xff" + WHOLE[HEADER:]
    got = heard(data)
    assert abs(len(got) - RATE) < 0.15 * RATE
    middle = got[4000:12000]
    peak = np.abs(np.fft.rfft(middle * np.hanning(len(middle)))).argmax() * RATE / len(middle)
    spectrum = np.abs(np.fft.rfft(TONE[4000:12000] * np.hanning(8000)))
    assert abs(peak - spectrum.argmax() * 2.0) < 5


def id3(size: int = 300) -> bytes:
    return b"ID3\x04\x00\x00" + bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0)) + bytes(size)


@pytest.mark.parametrize(("form", "codec"), [("flac", "flac"), ("adts", "aac"), ("mp3", "libmp3lame")])
def test_a_tag_in_front_hides_no_format(form: str, codec: str) -> None:
    plain = media.sound_file(form, codec, TONE, RATE)
    np.testing.assert_array_equal(heard(id3() + id3(5) + plain), heard(plain))


def test_joined_and_scarred_mp3_are_read_on() -> None:
    one = media.sound_file("mp3", "libmp3lame", media.noise(2 * RATE), RATE)
    assert len(heard(one + id3(999) + one)) > 1.9 * len(heard(one))
    scarred = one[: len(one) // 2] + bytes([0x55]) * 600 + one[len(one) // 2 :]
    assert abs(len(heard(scarred)) - len(heard(one))) < 0.2 * RATE
    assert code_of(lambda: heard(b"\xff\xfb" + bytes(5000))) in ("audio.decode_failed", "audio.empty")


def tracks(first: str, second: str, default: int) -> bytes:
    """Matroska with two sounds: silence, then a tone. first, second: codecs."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        streams = [container.add_stream(codec, rate=48000, layout="mono") for codec in (first, second)]
        streams[default].disposition = av.stream.Disposition.default
        streams[1 - default].disposition = 0
        for stream, samples in zip(streams, (media.tone(1.0, 48000) * 0, media.tone(1.0, 48000)), strict=True):
            media._mux_sound(container, stream, samples, 48000, "mono", 0.0)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("first", "second", "default", "loud"), [("aac", "aac", 1, True), ("aac", "aac", 0, False), ("dca", "aac", 0, True)]
)
def test_the_default_track_is_heard_or_the_one_that_can_be_read(
    first: str, second: str, default: int, loud: bool
) -> None:
    try:
        data = tracks(first, second, default)
    except (av.FFmpegError, ValueError):
        pytest.skip(f"this FFmpeg does not write {first}")
    assert (float(np.abs(heard(data)).max()) > 0.1) is loud


# ---------------------------------------------------------------- videos


@pytest.mark.parametrize(
    ("form", "codec"),
    [("avi", "mpeg4"), ("mpegts", "mpeg2video"), ("mov", "mjpeg"), ("asf", "msmpeg4"), ("3gp", "mpeg4")],
)
def test_videos_that_people_have(form: str, codec: str) -> None:
    frames = np.repeat(SCENES, 10, axis=0)
    try:
        data = media.video_file(frames, 10, form=form, codec=codec)
    except (av.FFmpegError, ValueError):
        pytest.skip(f"this FFmpeg does not write {codec} in {form}")
    levels = seen(data).frames.mean(axis=(1, 2, 3))
    assert len(levels) == 8
    np.testing.assert_allclose(levels[::2], [40, 90, 140, 190], atol=12)


@pytest.mark.parametrize("rate", [0.5, 1.0, 4 / 3, 2.0, 10.0])
def test_the_clock_is_right_at_any_rate(rate: float) -> None:
    """A clip of four scenes of two seconds is sampled the same, however few frames a second it has."""
    each = round(2 * rate)
    if each != 2 * rate:
        frames, times = np.repeat(SCENES, 3, axis=0), [n / 1.5 for n in range(12)]
        data = media.video_file(frames, 1.5, times=times)
    else:
        data = media.video_file(np.repeat(SCENES, each, axis=0), rate)
    levels = seen(data).frames.mean(axis=(1, 2, 3))
    assert len(levels) == 16
    wanted = np.repeat([40, 90, 140, 190], 4)
    assert (np.abs(levels - wanted) < 12).sum() >= 12  # the scenes' borders may fall a sample apart


def without_packets(frames: np.ndarray) -> bytes:
    """A video with a sound track of which nothing was recorded."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        video = container.add_stream("mpeg4", rate=10, width=56, height=56, pix_fmt="yuv420p")
        container.add_stream("aac", rate=48000, layout="mono").codec_context.open()
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode(None))
    return buffer.getvalue()


def test_a_sound_track_without_a_sound_is_a_silent_video() -> None:
    frames = np.repeat(SCENES, 10, axis=0)
    assert seen(without_packets(frames), with_sound=True).sound is None
    early = media.video_file(frames, 10, sound=media.tone(0.5, 48000), times=[2 + n / 10 for n in range(40)])
    assert seen(early, with_sound=True).sound is None
    assert code_of(lambda: seen(media.video_file(frames, 10), with_sound=True)) == "video.no_sound"


def patched(data: bytes, seconds: float) -> bytes:
    """A Matroska file whose Duration says ``seconds``."""
    at = data.index(b"\x44\x89\x88") + 3
    return data[:at] + struct.pack(">d", seconds * 1000) + data[at + 8 :]


@pytest.mark.parametrize("seconds", [1.0, 4.4, 10.0])
def test_a_duration_that_somebody_patched_is_not_believed(seconds: float) -> None:
    whole = media.video_file(np.repeat(SCENES, 10, axis=0), 10, form="matroska")
    assert len(seen(patched(whole, seconds)).frames) == 8


@pytest.mark.parametrize("start", [0.2, 1.0])
@pytest.mark.parametrize("form", ["matroska", "mp4"])
def test_a_start_that_is_not_zero_is_no_cut(form: str, start: float) -> None:
    times = [start + n / 10 for n in range(40)]
    assert len(seen(media.video_file(np.repeat(SCENES, 10, axis=0), 10, form=form, times=times)).frames) == 8


@pytest.mark.parametrize("form", ["matroska", "mp4"])
def test_a_cut_file_is_told_from_a_whole_one_at_every_place(form: str) -> None:
    whole = media.video_file(np.repeat(SCENES, 10, axis=0), 10, form=form)
    name = {"mp4": "mov"}.get(form, form)
    assert not ends_early(whole, name)
    for sixteenths in range(2, 16):
        cut = whole[: len(whole) * sixteenths // 16]
        assert ends_early(cut, name) or name == "mov"
        assert code_of(lambda cut=cut: seen(cut)) in ("video.truncated", "video.decode_failed")  # type: ignore[misc]


def test_structure_of_rubbish_says_nothing() -> None:
    for form in ("mov", "matroska", "aiff", "wav"):
        for data in (b"", b"\0" * 20, b"\xff" * 20, bytes(range(40))):
            ends_early(data, form)


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("form", ["BMP", "TIFF", "AVIF"])
def test_pictures_that_people_have(form: str) -> None:
    buffer = io.BytesIO()
    Pillow.fromarray(media.picture(64, 48)).save(buffer, form)
    assert door.open_image(buffer.getvalue(), Budget()).shape == (64, 48, 3)


def test_grey_of_16_bits_keeps_its_light_and_what_is_clear_shows_white() -> None:
    levels = np.linspace(0, 65535, 16 * 16).reshape(16, 16).astype(np.uint16)
    buffer = io.BytesIO()
    Pillow.fromarray(levels).save(buffer, "PNG", transparency=int(levels[3, 3]))
    pixels = door.open_image(buffer.getvalue(), Budget())
    wanted = levels // 256
    wanted[3, 3] = 255
    np.testing.assert_array_equal(pixels[..., 0], wanted)


def test_heic_is_refused_with_what_converts_it() -> None:
    with pytest.raises(MediaError, match="heif-convert IN.heic OUT.jpg"):
        door.open_image(b"\0\0\0\x18ftypheic" + bytes(40), Budget())


def test_arrays_of_any_order_are_read_and_pay_the_budget_of_files() -> None:
    pixels = media.picture(112, 112)
    for view in (pixels[..., ::-1], pixels[:, ::-1], np.broadcast_to(pixels[:1], (112, 112, 3))):
        kept = door.check_pixels(view, Budget())
        assert kept.flags.c_contiguous and np.array_equal(kept, view)
    huge = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (30_000, 30_000, 3))
    assert code_of(lambda: door.check_pixels(huge, Budget())) == "image.too_many_pixels"
    clip = Clip(np.broadcast_to(np.zeros((1, 1, 1, 3), np.uint8), (4, 20_000, 20_000, 3)), 2.0)
    assert code_of(lambda: door.check_clip(clip, RATE, Budget(), with_sound=False)) == "video.too_many_pixels"
    many = Clip(np.broadcast_to(np.zeros((1, 8, 8, 3), np.uint8), (10**6, 8, 8, 3)), 2.0)
    assert code_of(lambda: door.check_clip(many, RATE, Budget(), with_sound=False)) == "video.too_many_frames"
    endless = np.broadcast_to(np.zeros(1, np.int16), (10**9,))
    assert code_of(lambda: door.check_samples(endless, RATE, RATE, Budget())) == "audio.too_long"


# ---------------------------------------------------------------- ways to give a file


def test_base64_and_addresses_of_local_files(tmp_path: Path) -> None:
    data = media.image_file(media.picture(40, 30))
    path = tmp_path / "a picture.png"
    path.write_bytes(data)
    for source in (b64encode(data).decode(), f"data:image/png;base64,{b64encode(data).decode()}", path.as_uri()):
        assert door.open_image(source, Budget()).shape == (40, 30, 3)
    with pytest.raises(MediaError) as caught:
        door.open_image("data:image/png;base64,***" + "A" * 2_000_000, Budget())
    assert caught.value.code == "media.url" and len(str(caught.value)) < 300
    assert code_of(lambda: door.open_image("https://example.com/cat.png", Budget())) == "media.url"
