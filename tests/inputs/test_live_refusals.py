"""Live input that is refused: a typed error each, and the stream goes on as if it had not come."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from descant.config import InputsConfig
from descant.errors import MediaError, SessionError
from descant.inputs.live import LiveMedia
from descant.inputs.live_sight import LiveFrames
from descant.inputs.live_sound import LiveAudio
from descant.types import Audio
from tests.inputs import media
from tests.inputs.test_live import IDS, INPUTS, check_against_prompt, entries

TONE = media.tone(0.5, 16000)
GREY = media.grey_frames([9], 56, 56)[0]
SHORT = InputsConfig(max_audio_s=1.0, video_min_pixels=3136, video_max_pixels=3136, max_frames=6)
# 8 of these frames share fewer pixels than a frame of 112 x 112 has
SHARED = InputsConfig(video_min_pixels=3136, video_max_pixels=12544, video_total_pixels=37632)
BAD: dict[str, tuple[Callable[[LiveMedia], None], str]] = {
    "NaN": (lambda live: live.push_audio(TONE * np.nan, 16000), "audio.not_finite"),
    "infinite": (lambda live: live.push_audio(np.array([0, np.inf]), 16000), "audio.not_finite"),
    "too large for float32": (lambda live: live.push_audio(np.array([1e300]), 16000), "audio.not_finite"),
    "odd bytes": (lambda live: live.push_audio(b"\0\0\0", 16000), "audio.odd_bytes"),
    "stereo": (lambda live: live.push_audio(np.zeros((2, 9), np.int16), 16000), "audio.bad_array"),
    "int32": (lambda live: live.push_audio(np.zeros(9, np.int32), 16000), "audio.bad_array"),
    "changed rate": (lambda live: live.push_audio(TONE, 24000), "audio.rate_changed"),
    "no rate": (lambda live: live.push_audio(TONE, 0), "audio.bad_rate"),
    "too long": (lambda live: live.push_audio(np.zeros(8001), 16000), "audio.too_long"),
    "backwards": (lambda live: live.push_frame(GREY, 0.4), "video.bad_time"),
    "never": (lambda live: live.push_frame(GREY, float("nan")), "video.bad_time"),
    "before the sound": (lambda live: live.push_frame(GREY, -0.1), "video.bad_time"),
    "another size": (lambda live: live.push_frame(media.picture(56, 84), 1.0), "video.size_changed"),
    "too many frames": (lambda live: live.push_frame(GREY, 3.0), "video.too_many_frames"),
    "grey": (lambda live: live.push_frame(GREY[:, :, 0], 1.0), "image.bad_array"),
    "no picture": (lambda live: live.push_frame(b"hello, world", 1.0), "media.unknown_format"),
}


def opened() -> LiveMedia:
    live = LiveMedia(SHORT, IDS, sight=True)
    live.push_frame(GREY, 0.5)
    live.push_audio(TONE, 16000)
    return live


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_and_changes_nothing(case: str) -> None:
    push, code = BAD[case]
    live, untouched = opened(), opened()
    with pytest.raises(MediaError) as caught:
        push(live)
    assert caught.value.code == code
    for each in (live, untouched):
        each.push_audio(TONE, 16000)
        each.push_frame(GREY, 2.5)
    assert entries(live.finish()) == entries(untouched.finish())


def test_frames_that_would_shrink_the_earlier_ones_are_refused() -> None:
    live = LiveFrames(SHARED)
    for place in range(6):
        live.push(media.picture(112, 112), place / 2)
    with pytest.raises(MediaError, match="at most 6 of 112 x 112") as caught:
        live.push(media.picture(112, 112), 3.0)
    assert caught.value.code == "video.too_many_frames" and live.shape[0] == 3


LATE: dict[str, Callable[[LiveMedia], object]] = {
    "sound": lambda live: live.push_audio(TONE, 16000),
    "a frame": lambda live: live.push_frame(GREY, 9.0),
    "an end": lambda live: live.finish(),
}


@pytest.mark.parametrize("late", LATE)
def test_nothing_comes_after_the_end(late: str) -> None:
    ended, cancelled = opened(), opened()
    made = ended.finish()
    cancelled.cancel()
    cancelled.cancel()
    for live in (ended, cancelled):
        with pytest.raises(SessionError, match="after"):
            LATE[late](live)
    assert entries(ended.tokens()) == entries(made)
    assert len(cancelled.tokens()) == 0


def test_streams_alone_refuse_what_comes_late() -> None:
    sound, frames = LiveAudio(INPUTS), LiveFrames(INPUTS)
    sound.push(TONE, 16000)
    sound.finish()
    frames.finish()
    late: list[Callable[[], object]] = [
        lambda: sound.push(TONE, 16000), sound.finish, lambda: frames.push(GREY, 0.0), frames.finish,
    ]  # fmt: skip
    for call in late:
        with pytest.raises(SessionError, match="after"):
            call()


@pytest.mark.parametrize("rate, count", [(16000, 320), (48000, 961), (44100, 1), (8000, 160)])
def test_a_sound_too_short_to_end_may_go_on(rate: int, count: int) -> None:
    live = LiveMedia(INPUTS, IDS)
    samples = media.noise(count + 3000)
    live.push_audio(samples[:count], rate)
    with pytest.raises(MediaError) as caught:
        live.finish()
    assert caught.value.code in ("audio.too_short", "audio.empty")
    live.push_audio(samples[count:], rate)
    check_against_prompt(live.finish(), Audio(samples, rate))


def test_what_makes_no_sense() -> None:
    with pytest.raises(SessionError, match="neither sound nor pictures"):
        LiveMedia(INPUTS, IDS, sound=False)


def test_sound_cannot_join_pictures_that_began_long_before() -> None:
    live = LiveMedia(INPUTS, IDS, sound=False, sight=True)
    live.push_frame(GREY, 3.0)
    with pytest.raises(MediaError) as caught:
        live.push_audio(TONE, 16000)
    assert caught.value.code == "audio.late"
    assert len(live.finish().ids) > 0  # and the pictures go on


def test_a_refused_stream_does_not_join() -> None:
    live = LiveMedia(INPUTS, IDS)
    live.push_audio(TONE, 16000)
    with pytest.raises(MediaError):
        live.push_frame(b"hello, world", 0.0)
    check_against_prompt(live.finish(), Audio(TONE, 16000))
