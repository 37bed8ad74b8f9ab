"""Good media: every mode, container and clock is read as what it shows or sounds like."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as Pillow

from descant.config import InputsConfig
from descant.inputs import door
from descant.types import Budget, Clip
from tests.inputs import media

INPUTS = InputsConfig(video_min_pixels=3136, video_max_pixels=3136)  # frames of 56 x 56: fast
BUDGET = Budget()
RGB = media.picture(24, 40)

# ---------------------------------------------------------------- pictures


def seen(picture: Pillow.Image, form: str = "PNG", **options: object) -> npt.NDArray[np.int64]:
    return door.open_image(media.image_file(picture, form, **options), BUDGET).astype(np.int64)


def test_modes() -> None:
    picture = Pillow.fromarray(RGB)
    grey = np.array(picture.convert("L")).astype(np.int64)
    assert np.array_equal(seen(picture), RGB)
    assert np.array_equal(seen(picture.convert("L")), np.stack([grey] * 3, -1))
    assert np.array_equal(seen(picture.convert("1")), np.array(picture.convert("1").convert("RGB")))
    assert np.array_equal(seen(picture.convert("P")), np.array(picture.convert("P").convert("RGB")))
    assert np.abs(seen(picture.convert("CMYK"), "JPEG", quality=95) - RGB).mean() < 12


def test_sixteen_bits_keep_their_high_byte() -> None:
    deep = np.linspace(0, 65535, 24 * 40).reshape(24, 40).astype(np.uint16)
    assert np.array_equal(seen(Pillow.fromarray(deep))[..., 0], deep >> 8)


def test_what_is_transparent_shows_white() -> None:
    rgba = np.dstack([RGB, np.zeros((24, 40), np.uint8)])
    rgba[:, 20:, 3] = 255
    expected = RGB.astype(np.int64)
    expected[:, :20] = 255
    assert np.array_equal(seen(Pillow.fromarray(rgba)), expected)
    assert np.array_equal(seen(Pillow.fromarray(rgba), "WEBP", lossless=True, exact=True), expected)
    half = Pillow.fromarray(np.dstack([np.zeros((4, 4), np.uint8), np.full((4, 4), 128, np.uint8)]), "LA")
    assert np.abs(seen(half) - 127).max() <= 1
    palette = Pillow.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4) % 2, "P")
    palette.putpalette([10, 20, 30, 200, 100, 50])
    shown = seen(palette, transparency=0)
    assert shown[0, 0].tolist() == [255] * 3 and shown[0, 1].tolist() == [200, 100, 50]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(orientation: int) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    turns = {
        1: RGB, 2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1], 5: RGB.swapaxes(0, 1), 6: np.rot90(RGB, -1),
        7: RGB[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(RGB),
    }  # fmt: skip
    assert np.array_equal(seen(Pillow.fromarray(RGB), exif=exif), turns[orientation])


def test_the_first_frame_of_an_animation() -> None:
    frames = [Pillow.new("RGB", (30, 30), colour) for colour in ("red", "blue", "green")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    assert door.open_image(buffer.getvalue(), BUDGET)[0, 0].tolist() == [255, 0, 0]


# ---------------------------------------------------------------- sounds

HALF = media.tone(1.0, 24000)
CODINGS = [
    ("wav", "pcm_s16le"), ("wav", "pcm_s24le"), ("wav", "pcm_f32le"), ("wav", "pcm_f64le"), ("wav", "pcm_u8"),
    ("wav", "pcm_s32le"), ("wav", "pcm_mulaw"), ("aiff", "pcm_s16be"), ("flac", "flac"), ("mp3", "libmp3lame"),
    ("ogg", "libopus"), ("webm", "libopus"), ("adts", "aac"), ("ipod", "aac"), ("mp4", "aac"), ("mov", "alac"),
    ("matroska", "aac"),
]  # fmt: skip


@pytest.mark.parametrize("layout", ["mono", "stereo"])
@pytest.mark.parametrize(("form", "codec"), CODINGS)
def test_containers(form: str, codec: str, layout: str) -> None:
    """A tone of 440 Hz and half scale comes back as one, at its length give or take the coder's padding."""
    rate = 48000 if codec == "libopus" else 24000
    data = media.sound_file(form, codec, media.tone(1.0, rate), rate, layout=layout)
    samples = door.open_audio(data, 16000, BUDGET)
    assert samples.dtype == np.float32 and 16000 <= len(samples) <= 17200
    middle = samples[4000:12000]
    assert np.argmax(np.abs(np.fft.rfft(middle))) == 220  # 440 Hz in bins of 2 Hz
    assert abs(np.sqrt(2 * np.mean(middle**2)) - 0.5) < 0.03  # LAME scales by 0.95


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_plain_wav_is_exact(dtype: type) -> None:
    tone = media.tone(0.5, 16000)
    scale = {np.uint8: 127.0, np.int16: 32767.0, np.int32: 2.0**31 - 1}.get(dtype)
    stored = (
        tone.astype(dtype)
        if scale is None
        else np.round(tone * scale + (128 if dtype is np.uint8 else 0)).astype(dtype)
    )
    heard = door.open_audio(media.wav(stored, 16000), 16000, BUDGET)
    assert np.abs(heard - tone).max() < (0.02 if dtype is np.uint8 else 1e-4)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000])
def test_rates(rate: int) -> None:
    heard = door.open_audio(media.wav(media.tone(1.0, rate), rate), 16000, BUDGET)
    assert abs(len(heard) - 16000) <= 1
    assert np.abs(heard[2000:14000] - media.tone(1.0, 16000)[2000:14000]).max() < 2e-3


def test_stereo_is_averaged() -> None:
    tone = media.tone(0.5, 16000)
    left = door.open_audio(media.wav(np.stack([tone, 0 * tone], 1), 16000), 16000, BUDGET)
    assert np.allclose(left, tone / 2, atol=1e-6)
    assert np.abs(door.open_audio(media.wav(np.stack([tone, -tone], 1), 16000), 16000, BUDGET)).max() == 0


def test_a_wav_written_to_a_pipe_has_no_length() -> None:
    data = bytearray(media.wav(HALF, 24000))
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    assert np.array_equal(door.open_audio(bytes(data), 24000, BUDGET), HALF)


def test_the_sound_of_a_video_is_a_sound() -> None:
    data = media.video_file(media.grey_frames([0] * 10), 10, sound=media.tone(1.0, 48000))
    assert 16000 <= len(door.open_audio(data, 16000, BUDGET)) < 17200


# ---------------------------------------------------------------- videos


def watched(data: bytes, *, with_sound: bool = False) -> Clip:
    return door.open_video(data, INPUTS, BUDGET, with_sound=with_sound)


def levels(clip: Clip) -> list[int]:
    return [round(float(frame.mean())) for frame in clip.frames]


@pytest.mark.parametrize(
    ("form", "codec"), [("mp4", "mpeg4"), ("mp4", "libx264"), ("webm", "libvpx"), ("matroska", "libx264")]
)
def test_video_containers(form: str, codec: str) -> None:
    """3 s at 10 a second, grey growing by 7: two a second are seen, the first and the last among them."""
    data = media.video_file(media.grey_frames([7 * i for i in range(30)]), 10, form=form, codec=codec)
    clip = watched(data)
    assert clip.fps == 2.0 and clip.sound is None
    assert np.abs(np.array(levels(clip)) - 7 * np.array([0, 6, 12, 17, 23, 29])).max() <= 4


def test_a_recording_that_stood_still_is_not_sped_up() -> None:
    """Ten frames in the first second, then one at 4 s and one at 8 s: samples follow the clock, not the count."""
    times = [*np.arange(10) / 10, 4.0, 8.0]
    frames = media.grey_frames([*range(10), 100, 200])
    clip = watched(media.video_file(frames, 10, form="matroska", codec="libx264", times=times))
    assert len(clip.frames) >= 16
    steps = levels(clip)
    assert steps == sorted(steps)
    assert steps.count(steps[-1]) >= 3  # the last frames, shown for long, are seen often
    assert sum(level < 20 for level in steps) <= 6


def test_short_videos() -> None:
    assert len(watched(media.video_file(media.grey_frames([50]), 10)).frames) == 2  # one frame, twice
    assert len(watched(media.video_file(media.grey_frames([0, 90, 180]), 10)).frames) == 2
    assert len(watched(media.video_file(media.grey_frames([0] * 10), 10)).frames) == 4  # the least, of 1 s


@pytest.mark.parametrize(("rotation", "expected"), [(90, [0, 255]), (-90, [255, 0])])
def test_rotated_videos_are_seen_upright(rotation: int, expected: list[int]) -> None:
    """Left half white, right half black; turned a quarter, the halves are above each other."""
    frame = np.zeros((64, 128, 3), np.uint8)
    frame[:, :64] = 255
    clip = watched(media.video_file(np.stack([frame] * 8), 4, codec="libx264", rotation=rotation))
    pixels = clip.frames[0]
    assert pixels.shape[0] > pixels.shape[1]
    middle = pixels.shape[1] // 2
    assert [round(float(pixels[row, middle].mean()) / 255) * 255 for row in (4, -4)] == expected


@pytest.mark.parametrize("form", ["mp4", "matroska", "webm"])
@pytest.mark.parametrize("delay", [0.0, 0.5])
def test_sound_is_on_the_clock_of_the_pictures(form: str, delay: float) -> None:
    """A click half a second into the sound is heard ``delay`` later in the clip."""
    sound = np.zeros(72000, np.float32)
    sound[24000:24480] = 0.8
    codec = "libvpx" if form == "webm" else "libx264"
    clip = watched(
        media.video_file(media.grey_frames([0] * 20), 10, form=form, codec=codec, sound=sound, delay=delay),
        with_sound=True,
    )
    assert clip.sound is not None
    at = int(np.argmax(np.abs(clip.sound) > 0.3)) / 16000
    assert abs(at - (0.5 + delay)) < 0.03


@pytest.mark.parametrize("seconds", [1.0, 4.0])
def test_sound_may_be_shorter_or_longer_than_the_pictures(seconds: float) -> None:
    clip = watched(media.video_file(media.grey_frames([0] * 20), 10, sound=media.tone(seconds, 48000)), with_sound=True)
    assert clip.sound is not None and abs(len(clip.sound) / 16000 - seconds) < 0.1
    assert len(clip.frames) == 4
