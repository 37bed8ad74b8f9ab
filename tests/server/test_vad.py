"""When somebody speaks, and when a turn is over: by loudness, by silero's network, and by the words."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr

from descant.errors import OptionError
from descant.inputs.audio_file import decode_wav
from descant.server import silero
from descant.server.silero import SileroScorer, detector, model_path, shared_model
from descant.server.turn_end import WAIT_S, Eagerness, TurnEnd, completeness
from descant.server.vad import LoudnessScorer, TurnDetector, VadEvent, VadSettings
from descant.types import Budget, Finished, Timings, Usage
from tests.inputs import media

RATE_HZ = 24_000
LOUD = 0.3 * media.noise(RATE_HZ)
QUESTION = Path(__file__).resolve().parents[2] / "descant" / "assets" / "demo" / "question.wav"
has_silero = pytest.mark.skipif(model_path() is None, reason="the extra [vad] is not installed")


def loudness(settings: VadSettings | None = None) -> TurnDetector:
    return TurnDetector(LoudnessScorer(RATE_HZ), settings or VadSettings())


def turns(events: Iterable[VadEvent]) -> list[VadEvent]:
    return [event for event in events if event.kind in ("started", "stopped")]


@pytest.mark.parametrize("cut", [100, 480, 7777])
def test_the_detector_hears_the_same_in_any_cuts(cut: int) -> None:
    quiet = 0.001 * media.noise(2 * RATE_HZ, seed=3)
    sound = np.concatenate([quiet, LOUD, quiet, LOUD[: RATE_HZ // 2], quiet])
    whole = list(loudness().push(sound))
    one = loudness()
    pieces = [event for start in range(0, len(sound), cut) for event in one.push(sound[start : start + cut])]
    found = turns(whole)
    assert pieces == whole and [event.kind for event in found] == ["started", "stopped"] * 2
    assert abs(found[0].at_s - 1.7) < 0.1 and abs(found[1].at_s - 3.5) < 0.1


def test_a_click_and_a_loud_room_are_no_speech() -> None:
    click = np.zeros(RATE_HZ, np.float32)
    click[9000:9400] = 0.9
    assert [event.kind for event in loudness().push(click)] == ["maybe", "nothing"]
    fan = 0.02 * media.noise(10 * RATE_HZ, seed=1)
    events = turns(loudness().push(fan))
    assert [event.kind for event in events] in ([], ["started", "stopped"])  # at most until its level is known


class Told:
    """A scorer that is told its scores."""

    size = 1
    frame_s = 0.02

    def score(self, frame: Any, *, speaking: bool) -> float:
        return float(frame[0])


@pytest.mark.parametrize("seed", range(200))
def test_events_come_in_their_order_whatever_the_scores(seed: int) -> None:
    """maybe -> nothing, or started (after at least three frames above the threshold) -> pauses -> stopped, never
    before the silence was long enough; the start lies where its padding begins."""
    rng = np.random.default_rng(seed)
    settings = VadSettings(float(rng.uniform(0.1, 0.9)), 0.02 * int(rng.integers(1, 30)), float(rng.uniform(0, 0.4)))
    scores = np.repeat(rng.random(60), rng.integers(1, 20, 60)).astype(np.float32)
    one = TurnDetector(Told(), settings)
    state = "quiet"
    after = {"quiet": {"maybe"}, "maybe": {"nothing", "started"}, "speaks": {"pausing", "stopped"}}
    into = {"maybe": "maybe", "nothing": "quiet", "started": "speaks", "pausing": "speaks", "stopped": "quiet"}
    began = 0.0
    for frame, score in enumerate(scores, start=1):
        for event in one.push(np.array([score])):
            assert event.kind in after[state]
            state = into[event.kind]
            if event.kind == "maybe":
                began = 0.02 * (frame - 1)
            if event.kind == "started":
                assert event.at_s == pytest.approx(max(0.0, began - settings.padding_s)) and frame * 0.02 - began > 0.05
            if event.kind == "stopped":
                last = np.flatnonzero(scores[:frame] > settings.threshold * 0.7)[-1] + 1
                assert (frame - last) * 0.02 >= settings.silence_s - 1e-6
        assert one.speaking == (state == "speaks")


# ---------------------------------------------------------------- silero


@has_silero
@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000])
def test_silero_hears_who_speaks_and_not_a_loud_noise(rate: int) -> None:
    said = decode_wav(QUESTION.read_bytes(), 16000, Budget())
    assert said is not None
    question = soxr.resample(said, 16000, rate)
    noise = (0.1 * media.noise(2 * rate)).astype(np.float32)
    quiet = np.zeros(rate, np.float32)
    one = detector("silero", rate, VadSettings())
    events = turns(one.push(np.concatenate([noise, quiet, question, quiet])))
    assert [event.kind for event in events] == ["started", "stopped"]
    assert 2.6 < events[0].at_s < 3.3 and 4.3 < events[1].at_s < 5.4


@has_silero
def test_all_microphones_share_one_network_and_no_state() -> None:
    first, second = SileroScorer(16000), SileroScorer(16000)
    assert first._model is second._model is shared_model()
    frames = media.noise(16 * 512).reshape(16, 512)
    alone = [first.score(frame, speaking=False) for frame in frames]
    beside = SileroScorer(16000)
    mixed = []
    for frame in frames:
        mixed.append(second.score(frame, speaking=False))
        beside.score(frame[::-1].copy(), speaking=False)
    assert alone == mixed


def test_without_the_extra_loudness_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silero, "model_path", lambda: None)
    assert isinstance(detector("auto", 16000, VadSettings())._scorer, LoudnessScorer)
    silero.shared_model.cache_clear()
    with pytest.raises(OptionError, match="descant\\[vad\\]"):
        detector("silero", 16000, VadSettings())


# ---------------------------------------------------------------- the words


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("What is it?", "complete"),
        ("Yes.", "complete"),
        ("这是什么？", "complete"),
        ("what is the", "open"),
        ("I went to the shop and", "open"),
        ("well, I think...", "open"),
        ("first,", "open"),
        ("", "open"),
        ("how many do you see", "unsure"),
        ("这是什么", "unsure"),
    ],
)
def test_completeness_is_told_by_the_last_word(text: str, wanted: str) -> None:
    assert completeness(text) == wanted


class Writes:
    """A model that writes down one text."""

    def __init__(self, text: str):
        self.text = text

    async def achat(self, *_: Any, **__: Any) -> Any:
        async def events() -> Any:
            yield Finished(self.text, "stop", Usage(0, 0, 0), Timings(0.0), 0.0)

        return events()


@pytest.mark.parametrize("eagerness", list(WAIT_S))
@pytest.mark.parametrize("place, text", enumerate(["Yes.", "how many", "and"]))
def test_a_turn_waits_as_long_as_its_words_want(eagerness: Eagerness, place: int, text: str) -> None:
    """Before the words are known, and once somebody speaks again, it waits as long as it can: 8, 4 or 2 s."""
    wait, longest = WAIT_S[eagerness][place], WAIT_S[eagerness][2]

    async def talk() -> None:
        judge = TurnEnd(eagerness)
        judge.paused(longest - 0.01)
        assert not judge.over
        judge.begin(Writes(text), np.zeros(10, np.float32), 16000)  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        judge.paused(wait - 0.01)
        assert not judge.over
        judge.paused(wait)
        assert judge.over
        judge.paused(0.0)
        judge.paused(longest - 0.01)
        assert not judge.over

    asyncio.run(talk())
