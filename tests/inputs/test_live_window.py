"""A microphone that is left open: what was not said fills no turn, and of a long turn the end is heard."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from descant.config import InputsConfig
from descant.engine.engine import Engine
from descant.errors import MediaError, SessionError
from descant.inputs import live
from descant.inputs.live import KEPT_SHARE, SILENCE_KEPT_S, SILENCE_S, LiveMedia, is_said
from descant.tokens import PromptTokens
from descant.types import Budget, Progress
from tests.engine import talks
from tests.inputs import media

RATE = 16000
LIMIT_S = 8.0
TOKENIZER = media.nano_tokenizer()
IDS = media.media_ids(TOKENIZER)
INPUTS = InputsConfig(default_system=None, video_min_pixels=3136, video_max_pixels=3136)
QUIET = np.zeros(RATE, np.float32)
FRAMES = media.grey_frames(list(range(0, 250, 4)), 56, 56)


def turn(*, sight: bool = False) -> LiveMedia:
    return LiveMedia(INPUTS, IDS, sight=sight, budget=Budget(audio_s=LIMIT_S))


def same(one: PromptTokens, other: PromptTokens) -> None:
    assert one.ids.equal(other.ids) and one.positions.equal(other.positions)
    for left, right in zip(one.spans, other.spans, strict=True):
        assert left.indices.equal(right.indices) and left.source.digest == right.source.digest


@pytest.mark.parametrize("cut_s", [0.02, 0.7, 5.0, 40.0])
@pytest.mark.parametrize("total_s", [7.0, 9.0, 33.0])
def test_of_a_long_turn_the_end_is_heard_as_if_it_alone_had_been_said(cut_s: float, total_s: float) -> None:
    said = media.noise(int(total_s * RATE))
    heard = turn()
    step = int(cut_s * RATE)
    for start in range(0, len(said), step):
        heard.push_audio(said[start : start + step], RATE)
    forgotten = heard.forgotten_s
    assert (forgotten > 0) == (total_s > LIMIT_S) and forgotten % IDS.seconds_per_chunk == 0
    assert total_s - forgotten >= min(total_s, KEPT_SHARE * LIMIT_S - IDS.seconds_per_chunk)
    alone = turn()
    alone.push_audio(said[round(forgotten * RATE) :], RATE)
    same(heard.finish(), alone.finish())


def test_silence_fills_no_turn_and_what_is_said_then_is_whole() -> None:
    heard = LiveMedia(INPUTS, IDS, budget=Budget(audio_s=60.0))
    most = 0
    for _ in range(1000):  # a quarter of an hour
        heard.push_audio(QUIET, RATE)
        most = max(most, len(heard.tokens()))
    assert most <= (SILENCE_S + 2) * 25 + 2
    said = media.noise(5 * RATE)
    heard.push_audio(said, RATE)
    alone = LiveMedia(INPUTS, IDS)
    kept = round((1005 - heard.forgotten_s - 5) * RATE)
    assert SILENCE_KEPT_S * RATE <= kept <= (SILENCE_S + 2) * RATE
    alone.push_audio(np.concatenate([np.zeros(kept, np.float32), said]), RATE)
    same(heard.finish(), alone.finish())


def test_what_was_said_is_kept_through_the_silence_after_it() -> None:
    heard = LiveMedia(INPUTS, IDS, budget=Budget(audio_s=60.0))
    heard.push_audio(media.noise(2 * RATE), RATE)
    for _ in range(50):
        heard.push_audio(QUIET, RATE)
    assert heard.forgotten_s == 0


def test_pictures_and_sound_are_forgotten_together() -> None:
    said, rate = media.noise(20 * RATE), 2.0
    heard = turn(sight=True)
    for second in range(20):
        heard.push_audio(said[second * RATE : (second + 1) * RATE], RATE)
        for half in (0.0, 0.5):
            heard.push_frame(FRAMES[round(rate * (second + half))], second + half)
    start = heard.forgotten_s
    assert start > 0
    alone = turn(sight=True)
    alone.push_audio(said[round(start * RATE) :], RATE)
    for place in range(round(start * rate), 40):
        alone.push_frame(FRAMES[place], place / rate - start)
    same(heard.finish(), alone.finish())


def test_a_camera_that_is_left_on_forgets_its_beginning() -> None:
    inputs = replace(INPUTS, max_frames=8)
    heard = LiveMedia(inputs, IDS, sight=True)
    for place in range(60):
        heard.push_audio(media.noise(RATE // 2), RATE)
        heard.push_frame(FRAMES[place], place / 2)
    assert heard.forgotten_s > 0 and len(heard.finish())


def test_a_refused_push_changes_nothing() -> None:
    heard = turn()
    said = media.noise(RATE)
    heard.push_audio(said, RATE)
    with pytest.raises(MediaError):
        heard.push_audio(np.full(9, np.nan, np.float32), RATE)
    with pytest.raises(MediaError, match="came at 16000 Hz and now at 8000"):
        heard.push_audio(said, 8000)
    alone = turn()
    alone.push_audio(said, RATE)
    same(heard.finish(), alone.finish())


@pytest.mark.parametrize(("level", "said"), [(0.0, False), (0.004, False), (0.05, True)])
def test_a_quiet_room_is_not_speech(level: float, said: bool) -> None:
    assert is_said(level * np.sign(media.noise(RATE)), RATE) is said
    assert is_said(np.zeros(0, np.float32), RATE) is False


# ---------------------------------------------------------------- the session


def test_what_was_pushed_can_be_cleared() -> None:
    engine = Engine(talks.MODELS)
    with talks.opened(engine) as session:
        session.add("before")
        session.push_audio(talks.NOISE, RATE)
        session.push_frame(talks.GREY, 0.0)
        session.add("after")
        session.clear()
        (cleared,) = talks.served(engine, session.respond())
        session.push_audio(talks.NOISE, RATE)
        session.clear()
        with pytest.raises(SessionError, match="nothing to answer"):
            session.respond()
    with talks.opened(engine) as session:
        session.add("before", "after")
        (plain,) = talks.served(engine, session.respond())
    talks.same(cleared, plain)


def test_the_answer_to_a_long_turn_says_what_was_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SILENCE_S", 1.0)
    engine = Engine(talks.MODELS)
    with talks.opened(engine) as session:  # at most 2 s of sound a turn
        for _ in range(6):
            session.push_audio(talks.NOISE[:RATE], RATE)
        answer = session.respond()
        first = answer.events.get()
        assert isinstance(first, Progress)
        assert (first.stage, first.total) == ("forgotten", 6) and first.done >= 2
        answer.cancel()
