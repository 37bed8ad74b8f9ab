"""Microphone and loudspeaker: nothing is lost or doubled between two threads, and what was played is counted."""

from __future__ import annotations

import random
import sys
import types

import numpy as np
import pytest
import soxr

from descant.cli.sound_card import RING_S, STALLED_S, Loudspeaker, Microphone, SampleRing, sound_library
from descant.config import OUTPUT_RATE_HZ
from descant.errors import DescantError
from tests.sound import FakeSounddevice, Sound

SEEDS = range(20)


def noise(count: int, seed: int = 0) -> Sound:
    """Samples of which none is 0, so that silence is told from sound."""
    return np.random.default_rng(seed).uniform(0.1, 0.9, count).astype(np.float32)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_goes_through_a_ring_comes_out_whole(seed: int) -> None:
    rng = random.Random(seed)
    ring = SampleRing(rng.choice([1, 7, 64]))
    sound = noise(500, seed)
    put = 0
    got: list[Sound] = []
    while sum(map(len, got)) < len(sound):
        put += ring.write(sound[put : put + rng.randrange(80)])
        into = np.zeros(rng.randrange(80), np.float32)
        got.append(into[: ring.read(into)])
        assert len(ring) == put - sum(map(len, got))
    assert (np.concatenate(got) == sound).all()


@pytest.mark.parametrize("rate", [24000, 44100, 48000, 16000])
@pytest.mark.parametrize("seed", range(5))
def test_all_that_is_written_is_played_in_any_cuts(rate: int, seed: int) -> None:
    rng = random.Random(seed)
    library = FakeSounddevice(rate)
    speaker = Loudspeaker(library)
    sound = noise(rng.randrange(200_000, 250_000), seed)  # more than there is room for
    assert len(sound) / OUTPUT_RATE_HZ > RING_S
    cuts = sorted(rng.sample(range(1, len(sound)), 9))
    for piece in np.split(sound, cuts):
        speaker.write(piece)
    speaker.end()
    (stream,) = library.outputs
    heard = []
    while not speaker.silent:
        before = speaker._ring.taken
        block = stream.pull(rng.randrange(1, 9000))
        heard.append(block[: speaker._ring.taken - before])
        assert not block[len(heard[-1]) :].any()
        speaker.feed()
        speaker.end()  # as often as one likes
    whole = sound if rate == OUTPUT_RATE_HZ else soxr.resample(sound, OUTPUT_RATE_HZ, rate, quality="HQ")
    assert np.concatenate(heard).shape == whole.shape and np.abs(np.concatenate(heard) - whole).max() < 1e-6
    assert speaker.underruns == 0 and stream.channels == 2


@pytest.mark.parametrize("rate", [24000, 44100])
def test_what_was_heard_is_what_left_but_for_what_is_under_way(rate: int) -> None:
    library = FakeSounddevice(rate, latency=0.05)
    speaker = Loudspeaker(library)
    speaker.write(noise(OUTPUT_RATE_HZ))
    (stream,) = library.outputs
    assert speaker.heard_s == 0.0
    stream.pull(round(0.02 * rate))
    assert speaker.heard_s == 0.0  # it is still under way
    stream.pull(round(0.28 * rate))
    assert speaker.stop() == pytest.approx(0.25) and stream.ends == ["abort", "close"]


def test_silence_that_was_played_in_place_of_sound_does_not_count() -> None:
    library = FakeSounddevice()
    speaker = Loudspeaker(library)
    (stream,) = library.outputs
    assert not stream.pull(4800).any()  # nothing is there yet: no under-run
    speaker.write(noise(2400))
    stream.pull(4800)
    assert speaker.underruns == 1 and speaker.heard_s == pytest.approx(0.1)
    speaker.write(noise(2400))  # 0.1 s: not enough to begin again
    assert not stream.pull(480).any()
    speaker.write(noise(2400))
    assert stream.pull(480).all() and speaker.heard_s == pytest.approx(0.12)
    stream.pull(4320)
    stream.pull(480)  # it ran dry at the very end of a block
    assert speaker.underruns == 2
    speaker.write(noise(240))
    speaker.end()  # then any rest is played
    assert stream.pull(480)[:240].all() and speaker.silent


@pytest.mark.parametrize("seed", SEEDS)
def test_a_microphone_gives_what_it_took_in_any_cuts(seed: int) -> None:
    rng = random.Random(seed)
    library = FakeSounddevice(48000)
    microphone = Microphone(library)
    sound = noise(30_000, seed)
    got = []
    for piece in np.split(sound, sorted(rng.sample(range(1, len(sound)), 20))):
        library.inputs[0].say(piece)
        if rng.random() < 0.4:
            got.append(microphone.read())
    got.append(microphone.read())
    assert (np.concatenate(got) == sound).all() and microphone.lost == 0 and microphone.rate == 48000


def test_who_does_not_read_loses_sound_and_is_told() -> None:
    library = FakeSounddevice(1000)
    microphone = Microphone(library)
    library.inputs[0].say(noise(round(RING_S * 1000) + 7))
    assert microphone.lost == 7 and len(microphone.read()) == RING_S * 1000


def test_a_device_that_goes_away_is_noticed() -> None:
    now = [0.0]
    library = FakeSounddevice()
    microphone = Microphone(library, lambda: now[0])
    now[0] = 0.9 * STALLED_S
    assert not microphone.is_gone()
    library.inputs[0].say(noise(10))
    now[0] = 1.8 * STALLED_S
    assert not microphone.is_gone()
    now[0] = 2.0 * STALLED_S  # no callback any more, though PortAudio says that it is active
    assert microphone.is_gone()
    microphone.close()
    assert library.inputs[0].ends == ["abort", "close"]  # to stop would wait for it
    again = Microphone(library, lambda: now[0])
    library.inputs[1].active = False
    assert again.is_gone()


@pytest.mark.parametrize("why", ["missing", "refused"])
def test_a_device_that_cannot_be_opened_is_one_line(why: str) -> None:
    library = FakeSounddevice(missing={"input", "output"} if why == "missing" else set(), refuses=why == "refused")
    with pytest.raises(DescantError, match="no microphone: "):
        Microphone(library)
    with pytest.raises(DescantError, match="no loudspeaker: "):
        Loudspeaker(library)


def test_sounddevice_may_be_missing_or_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("sounddevice")
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    assert sound_library() is module
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert sound_library() is None
    monkeypatch.delitem(sys.modules, "sounddevice")
    monkeypatch.setattr(sys, "meta_path", [NoPortAudio(), *sys.meta_path])
    with pytest.raises(DescantError, match="no PortAudio"):
        sound_library()


class NoPortAudio:
    """As sounddevice is imported where its library is not."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "sounddevice":
            raise OSError("PortAudio library not found")
