"""Sound as microphones give it: each distortion does what its name says, measured on what comes out."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from descant.errors import OptionError
from descant.train.nano import microphone, voices
from descant.train.nano.augment import CLIP_RATE_HZ
from descant.train.nano.sounds import make_sound

SEEDS = range(8)


def speech(seed: int = 0, seconds: float = 2.0) -> np.ndarray:
    """A stand-in for a voice: a buzz with syllables (4 a second) and a little noise on top, RMS 0.1."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * CLIP_RATE_HZ)) / CLIP_RATE_HZ
    buzz = sum(np.sin(2 * np.pi * k * (110 + 20 * seed) * t) / k for k in range(1, 30))
    wave = (buzz + 0.3 * rng.standard_normal(len(t))) * (0.55 + 0.45 * np.sin(2 * np.pi * 4 * t))
    return (0.1 * wave / np.sqrt(np.mean(wave**2))).astype(np.float32)


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))


def decibel(ratio: float) -> float:
    return float(20 * np.log10(ratio))


def power_between(samples: np.ndarray, low_hz: float, high_hz: float) -> float:
    spectrum = np.abs(np.fft.rfft(samples)) ** 2
    hertz = np.fft.rfftfreq(len(samples), 1 / CLIP_RATE_HZ)
    return float(spectrum[(hertz >= low_hz) & (hertz < high_hz)].sum())


# ---------------------------------------------------------------- level


@pytest.mark.parametrize("level", [-50, -35, -20, -14])
def test_a_level_is_that_of_the_sound_whatever_the_silence_around_it(level: float) -> None:
    for silence in (0.0, 1.0, 3.0):
        clip = np.pad(speech(), (round(silence * CLIP_RATE_HZ), round(2 * silence * CLIP_RATE_HZ)))
        loud = microphone.at_level(clip, level)
        assert decibel(rms(loud[loud != 0])) == pytest.approx(level, abs=2.5)
    silent = np.zeros(1000, np.float32)
    assert np.array_equal(microphone.at_level(silent, level), silent)


@pytest.mark.parametrize("over", [3.0, 10.0, 20.0])
def test_clipping_cuts_the_peaks_and_keeps_what_is_below(over: float) -> None:
    clip = speech()
    cut = microphone.clipped(clip, over)
    gain = 10 ** (over / 20) / np.abs(clip).max()
    inside = np.abs(clip) * gain < 1
    assert np.abs(cut).max() == 1.0 and 0.001 < (~inside).mean() < 0.95
    np.testing.assert_allclose(cut[inside], clip[inside] * gain, rtol=1e-5, atol=1e-6)
    assert np.array_equal(microphone.clipped(np.zeros(9, np.float32), over), np.zeros(9, np.float32))


# ---------------------------------------------------------------- silence


@pytest.mark.parametrize("floor", [None, -60.0, -45.0])
@pytest.mark.parametrize("lead,trail", [(0.0, 3.0), (1.5, 0.0), (2.0, 2.0)])
def test_silence_is_as_long_and_as_loud_as_asked_for(lead: float, trail: float, floor: float | None) -> None:
    clip = speech()
    out = microphone.surrounded(clip, lead, trail, floor, np.random.default_rng(0))
    before = round(lead * CLIP_RATE_HZ)
    assert len(out) == len(clip) + before + round(trail * CLIP_RATE_HZ)
    around = np.concatenate([out[:before], out[before + len(clip) :]])
    if floor is None:
        assert not around.any() and np.array_equal(out[before : before + len(clip)], clip)
    else:
        assert decibel(rms(around)) == pytest.approx(floor, abs=3)


def test_a_pause_lies_within_and_cuts_no_loud_sound() -> None:
    clip = speech()
    for seed in SEEDS:
        out = microphone.paused(clip, 0.7, np.random.default_rng(seed))
        assert len(out) == len(clip) + round(0.7 * CLIP_RATE_HZ)
        at = int(np.argmax(out[: len(clip)] != clip))
        assert len(clip) // 4 <= at <= 3 * len(clip) // 4
        np.testing.assert_array_equal(np.concatenate([out[:at], out[at + round(0.7 * CLIP_RATE_HZ) :]]), clip)
        assert np.abs(clip[at - 80 : at + 80]).mean() < np.abs(clip).mean()


# ---------------------------------------------------------------- noise


@pytest.mark.parametrize("name", microphone.SLOPES_DB)
def test_a_colour_falls_as_it_should_an_octave(name: str) -> None:
    noise = microphone.coloured(1 << 17, microphone.SLOPES_DB[name], np.random.default_rng(1))
    octaves = [power_between(noise, low, 2 * low) / low for low in (125, 250, 500, 1000, 2000)]  # a hertz
    slopes = 0.5 * np.diff([decibel(o) for o in octaves])
    assert rms(noise) == pytest.approx(1.0, abs=0.01)
    assert slopes.mean() == pytest.approx(microphone.SLOPES_DB[name], abs=0.6)


@pytest.mark.parametrize("snr", [0.0, 10.0, 25.0])
def test_what_is_mixed_in_lies_as_far_below_as_asked_for(snr: float) -> None:
    for seed in SEEDS:
        clip = np.pad(speech(seed), (8000, 8000))
        noise = microphone.coloured(len(clip), 0.0, np.random.default_rng(seed))
        both = microphone.mixed(clip, noise, snr)
        assert decibel(microphone.speech_rms(clip) / rms(both - clip)) == pytest.approx(snr, abs=0.5)
    silent = np.zeros(800, np.float32)
    assert np.array_equal(microphone.mixed(silent, noise, snr), silent)


@pytest.mark.parametrize("mains", [50.0, 60.0])
def test_hum_sits_on_the_mains_and_its_harmonics(mains: float) -> None:
    sound = microphone.hum(CLIP_RATE_HZ, mains, np.random.default_rng(0))
    on = sum(power_between(sound, k * mains - 1, k * mains + 1) for k in range(1, 8))
    assert rms(sound) == pytest.approx(1.0) and on / power_between(sound, 0, 8000) > 0.99


def test_babble_is_made_of_all_voices() -> None:
    tones = [np.sin(2 * np.pi * f * np.arange(4000) / CLIP_RATE_HZ).astype(np.float32) for f in (400, 800, 1600)]
    crowd = microphone.crowd_of(CLIP_RATE_HZ, tones, np.random.default_rng(0))
    assert len(crowd) == CLIP_RATE_HZ and not microphone.crowd_of(100, [], np.random.default_rng(0)).any()
    for hertz in (400, 800, 1600):
        assert power_between(crowd, hertz - 5, hertz + 5) > 0.05 * power_between(crowd, 0, 8000)


def test_the_own_voice_comes_late_and_quieter() -> None:
    own = np.ones(8000, np.float32) * 0.3
    clip = speech()
    leak = microphone.with_own_voice(clip, own, 0.5, 15.0) - clip
    assert not leak[: CLIP_RATE_HZ // 2].any() and leak[CLIP_RATE_HZ // 2 : CLIP_RATE_HZ // 2 + 8000].all()
    assert decibel(microphone.speech_rms(clip) / np.abs(leak).max()) == pytest.approx(15.0, abs=1)


# ---------------------------------------------------------------- rooms, lines and codecs


@pytest.mark.parametrize("decay", [0.15, 0.4, 0.8])
def test_a_room_decays_by_60_db_in_its_time(decay: float) -> None:
    click = np.zeros(CLIP_RATE_HZ // 10, np.float32)
    click[0] = 1.0
    for seed in SEEDS:
        heard = microphone.in_a_room(click, decay, 3.0, np.random.default_rng(seed))
        assert len(heard) == len(click) + max(round(decay * CLIP_RATE_HZ), CLIP_RATE_HZ // 20) - 1
        assert heard[0] == pytest.approx(1.0, abs=1e-4)
        reflections = heard[1:].astype(np.float64) ** 2
        assert -10 * np.log10(reflections.sum()) == pytest.approx(3.0, abs=0.2)
        tail = [np.sqrt(reflections[round(s * decay * CLIP_RATE_HZ) :][:800].mean()) for s in (0.35, 0.85)]
        assert decibel(tail[0] / tail[1]) == pytest.approx(30.0, abs=6)


def test_a_band_lets_the_middle_through_and_nothing_else() -> None:
    noise = microphone.coloured(1 << 15, 0.0, np.random.default_rng(0))
    out = microphone.banded(noise, 300, 3400)
    inside = power_between(out, 350, 3300) / power_between(noise, 350, 3300)
    assert inside == pytest.approx(1.0, abs=1e-3)
    assert power_between(out, 0, 150) < 1e-4 * power_between(noise, 0, 150)
    assert power_between(out, 5000, 8000) < 1e-4 * power_between(noise, 5000, 8000)


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


@pytest.mark.parametrize("codec", microphone.CODECS)
def test_a_codec_keeps_length_place_and_most_of_the_sound(codec: str) -> None:
    """Not bit for bit, or it would be no lossy codec; not late, or the silence around a clip would grow."""
    for seed in range(3):
        clip = speech(seed, 1.3)
        out = microphone.coded(clip, codec)
        assert out.shape == clip.shape and out.dtype == np.float32
        assert likeness(out, clip) > 0.85 and not np.array_equal(out, clip)


def test_a_telephone_has_no_bass_and_no_treble() -> None:
    noise = 0.2 * microphone.coloured(CLIP_RATE_HZ, 0.0, np.random.default_rng(0)).clip(-3, 3)
    out = microphone.telephone(noise)
    assert len(out) == len(noise)
    assert power_between(out, 4000, 8000) < 1e-3 * power_between(noise, 4000, 8000)
    assert power_between(out, 0, 100) < 1e-2 * power_between(noise, 0, 100)
    assert power_between(out, 500, 3000) == pytest.approx(power_between(noise, 500, 3000), rel=0.1)


@pytest.mark.parametrize("rate", [8000, 11025, 22050])
def test_another_rate_takes_the_treble_only(rate: int) -> None:
    clip = speech()
    out = microphone.resampled(clip, rate)
    assert len(out) == len(clip) and likeness(out, microphone.banded(clip, 1, 0.45 * rate)) > 0.98
    if rate < CLIP_RATE_HZ:
        assert power_between(out, 0.55 * rate, 8000) < 1e-3 * power_between(clip, 0.55 * rate, 8000)


# ---------------------------------------------------------------- a recording


def other(rng: np.random.Generator) -> np.ndarray:
    return speech(int(rng.integers(5)), 0.7)


def test_a_recording_depends_on_its_seed_alone_and_stays_usable() -> None:
    clip = speech(0, 1.0)
    lengths, levels = [], []
    for number in range(70):
        out = microphone.as_recorded(clip, np.random.default_rng([7, number]), other)
        again = microphone.as_recorded(clip, np.random.default_rng([7, number]), other)
        np.testing.assert_array_equal(out, again)
        assert out.dtype == np.float32 and np.isfinite(out).all() and np.abs(out).max() <= 1.0
        assert 0.9 * len(clip) < len(out) < len(clip) + 9 * CLIP_RATE_HZ
        lengths.append(len(out))
        levels.append(decibel(microphone.speech_rms(out)))
    assert min(levels) < -40 and max(levels) > -8  # from a whisper across the room to clipping
    assert max(lengths) > 4 * CLIP_RATE_HZ and min(lengths) < 1.3 * CLIP_RATE_HZ


def test_silence_stays_silence_through_every_chain() -> None:
    for number in range(30):
        out = microphone.as_recorded(np.zeros(16000, np.float32), np.random.default_rng([3, number]), other)
        assert np.isfinite(out).all() and np.abs(out).max() <= 1.0


# ---------------------------------------------------------------- speakers


def test_who_measures_never_trains() -> None:
    rng = random.Random(0)
    drawn = [voices.draw_speaker(rng) for _ in range(4000)]
    assert all(voices.may_train(one) for one in drawn)
    measuring = {*voices.OTHER_SYNTHETIC, *voices.NATURAL_UNMET}
    assert not any(voices.may_train(one) for one in measuring)
    assert not {(s.engine, s.voice) for s in drawn} & {(s.engine, s.voice) for s in measuring}
    assert {s.engine for s in drawn} == {name for name, engine in voices.ENGINES.items() if engine.trains}
    assert {s.engine for s in voices.NATURAL_UNMET}.isdisjoint({s.engine for s in drawn})


def recorded_commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Engines that note what they are asked for and say a tone of one second."""
    asked: list[list[str]] = []
    tone = make_sound("whistle", np.random.default_rng(0), 1.0)
    monkeypatch.setattr(voices.subprocess, "run", lambda command, **_: asked.append(command))
    monkeypatch.setattr(voices, "read_mono", lambda path, rate: tone)
    monkeypatch.setattr(voices.shutil, "which", lambda name: name)
    return asked


def test_a_shorter_tract_keeps_pace_and_pitch(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = recorded_commands(monkeypatch)
    said = voices.speak("one two", voices.Speaker("flite", "slt", formant=1.25))
    command = asked[0]
    assert "duration_stretch=1.250" in command and "int_f0_target_mean=134.4" in command  # slower and lower
    assert len(said) == pytest.approx(CLIP_RATE_HZ / 1.25, rel=0.01)  # and played faster


def test_an_octave_of_espeak_is_half_of_its_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = recorded_commands(monkeypatch)
    for pitch, steps in ((1.0, "50"), (0.5, "0"), (1.41, "75"), (9.0, "99")):
        voices.speak("one", voices.Speaker("espeak", "en-us", pace=2.0, pitch=pitch))
        assert asked[-1][asked[-1].index("-p") + 1] == steps
        assert asked[-1][asked[-1].index("-s") + 1] == str(2 * voices.ESPEAK_WORDS_A_MINUTE)


@pytest.mark.parametrize(
    "speaker,message",
    [
        (voices.Speaker("piper", "joe"), "unknown speech engine"),
        (voices.Speaker("festival", "nobody"), "unknown voice"),
        (voices.Speaker("festival", "ked", pace=1.2), "speak as they are"),
    ],
)
def test_what_cannot_be_said_is_told(speaker: voices.Speaker, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        voices.speak("one", speaker)


def test_a_missing_engine_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voices.shutil, "which", lambda name: None)
    for engine in ("flite", "espeak"):
        with pytest.raises(OptionError, match="apt install"):
            voices.speak("one", voices.Speaker(engine, "slt"))
    monkeypatch.setitem(__import__("sys").modules, "py_nanotts", None)
    with pytest.raises(OptionError, match="pip install"):
        voices.speak("one", voices.Speaker("pico", "en-US"))


@pytest.fixture
def pitch_of() -> Callable[[np.ndarray], float]:
    """The median pitch (Hz) of the loud parts, by autocorrelation."""

    def measure(samples: np.ndarray) -> float:
        size, found = 800, []
        for start in range(0, len(samples) - size, size // 2):
            part = samples[start : start + size] - samples[start : start + size].mean()
            match = np.correlate(part, part, "full")[size - 1 :]
            lag = 45 + int(match[45:250].argmax())
            if match[0] > 1.0 and match[lag] > 0.5 * match[0]:
                found.append(CLIP_RATE_HZ / lag)
        return float(np.median(found))

    return measure


def test_pico_speaks_at_another_pace_and_pitch(pitch_of: Callable[[np.ndarray], float]) -> None:
    pytest.importorskip("py_nanotts", reason="the voices extra is optional")
    text = "what is the opposite of summer"
    plain, slow, high, short = (
        voices.speak(text, voices.Speaker("pico", "en-US", *numbers))
        for numbers in ((1, 1, 1), (0.75, 1, 1), (1, 1.3, 1), (1, 1, 1.15))
    )
    assert len(slow) / len(plain) == pytest.approx(1 / 0.75, rel=0.1)
    assert pitch_of(high) / pitch_of(plain) == pytest.approx(1.3, rel=0.08)
    assert len(short) / len(plain) == pytest.approx(1.0, rel=0.1)
    assert pitch_of(short) / pitch_of(plain) == pytest.approx(1.0, rel=0.08)
