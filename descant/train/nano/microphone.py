"""Sound as a microphone gives it: silence, rooms, noise, other voices, levels, telephones and codecs.

Every distortion takes samples (W,) float32 at 16 kHz and its numbers, and is a pure function of them and of ``rng``.
``as_recorded`` draws a chain of them; training hears each clip through another chain, by (seed, number) alone.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from fractions import Fraction

import av
import numpy as np
import soxr
from numpy.random import Generator

from descant.train.nano.augment import CLIP_RATE_HZ, speed

SLOPES_DB = {"white": 0.0, "pink": -3.0, "brown": -6.0, "blue": 3.0}  # of power, an octave
LOWEST_NOISE_HZ = 20.0  # below it a colour is flat: there is nothing to hear
CODECS = {  # name -> (container, encoder, rate in Hz, bits a second)
    "opus": ("ogg", "libopus", 16000, 16000), "mp3": ("mp3", "libmp3lame", 16000, 24000),
    "alaw": ("wav", "pcm_alaw", 8000, 64000), "mulaw": ("wav", "pcm_mulaw", 8000, 64000),
}  # fmt: skip
TELEPHONE_HZ = (300.0, 3400.0)
SILENT_RMS = 1e-4  # -80 dB of full scale: quieter sound has no level to set


def as_float(samples: np.ndarray) -> np.ndarray:
    """The same numbers as float32."""
    return np.asarray(samples, dtype=np.float32)


def speech_rms(samples: np.ndarray) -> float:
    """RMS of the tenths of a second that hold the sound: those within 20 dB of the loudest one."""
    size = CLIP_RATE_HZ // 10
    if len(samples) < size:
        return float(np.sqrt(np.mean(samples**2))) if len(samples) else 0.0
    power = (samples[: len(samples) // size * size].reshape(-1, size).astype(np.float64) ** 2).mean(1)
    return float(np.sqrt(power[power >= 0.01 * power.max()].mean()))


def at_level(samples: np.ndarray, level_db: float) -> np.ndarray:
    """Bring the sound (silence apart) to this RMS in dB of full scale. What goes beyond full scale stays there."""
    own = speech_rms(samples)
    if own < SILENT_RMS:
        return samples
    scaled: np.ndarray = (samples * (10 ** (level_db / 20) / own)).astype(np.float32)
    return scaled


def clipped(samples: np.ndarray, over_db: float) -> np.ndarray:
    """Cut the peaks off, as a gain of ``over_db`` more than fits does."""
    peak = float(np.abs(samples).max()) if len(samples) else 0.0
    if peak == 0.0:
        return samples
    cut: np.ndarray = np.clip(samples / peak * 10 ** (over_db / 20), -1.0, 1.0).astype(np.float32)
    return cut


def coloured(count: int, slope_db: float, rng: Generator) -> np.ndarray:
    """Noise of unit RMS whose power falls or rises by ``slope_db`` an octave."""
    white = rng.standard_normal(count)
    if slope_db == 0.0 or count < 2:
        return as_float(white)
    spectrum = np.fft.rfft(white)
    hertz = np.maximum(np.fft.rfftfreq(count, 1 / CLIP_RATE_HZ), LOWEST_NOISE_HZ)
    noise = np.fft.irfft(spectrum * (hertz / 1000.0) ** (slope_db / 20 / np.log10(2)), count)
    return as_float(noise / (np.sqrt(np.mean(noise**2)) + 1e-12))


def mixed(samples: np.ndarray, other: np.ndarray, snr_db: float) -> np.ndarray:
    """Add another sound (repeated or cut to fit), its loudness ``snr_db`` below that of the first."""
    own = speech_rms(samples)
    theirs = speech_rms(other)
    if own < SILENT_RMS or theirs == 0.0:
        return samples
    fitting = np.resize(other, len(samples))
    both: np.ndarray = (samples + fitting * (own / theirs * 10 ** (-snr_db / 20))).astype(np.float32)
    return both


def surrounded(
    samples: np.ndarray, lead_s: float, trail_s: float, floor_db: float | None, rng: Generator
) -> np.ndarray:
    """Put silence before and after: digital (None), or under all of it a floor of noise at so many dB of full scale."""
    out = np.pad(samples, (round(lead_s * CLIP_RATE_HZ), round(trail_s * CLIP_RATE_HZ))).astype(np.float32)
    if floor_db is None:
        return out
    floor = coloured(len(out), float(rng.choice([0.0, -3.0, -6.0])), rng)
    return as_float(out + 10 ** (floor_db / 20) * floor)


def paused(samples: np.ndarray, seconds: float, rng: Generator) -> np.ndarray:
    """Hesitate once: silence at the quietest of some places in the middle half, so that no sound is cut."""
    size = CLIP_RATE_HZ // 50
    first, last = len(samples) // 4, 3 * len(samples) // 4
    if last - first <= size:
        return samples
    places = rng.integers(first, last - size, size=24)
    at = min((float(np.abs(samples[p : p + size]).mean()), int(p)) for p in places)[1] + size // 2
    return np.concatenate([samples[:at], np.zeros(round(seconds * CLIP_RATE_HZ), np.float32), samples[at:]])


def in_a_room(samples: np.ndarray, decay_s: float, direct_db: float, rng: Generator) -> np.ndarray:
    """A room: reflections behind the sound, which take ``decay_s`` to fall by 60 dB; longer by that tail.

    The impulse response is one of its own: eight early reflections within 40 ms, then noise that decays exponentially
    and loses its treble first. direct_db: the direct sound's energy against that of all reflections.
    """
    count = max(round(decay_s * CLIP_RATE_HZ), CLIP_RATE_HZ // 20)
    t = np.arange(count) / CLIP_RATE_HZ
    late = rng.standard_normal(count) * 10 ** (-3 * t / decay_s)
    dull = np.convolve(rng.standard_normal(count), np.ones(6) / 6, "same") * 10 ** (-3 * t / decay_s)
    share = np.minimum(t / decay_s, 1.0)
    response = (1 - share) * late + share * dull
    response[: CLIP_RATE_HZ // 200] = 0.0
    for delay_s in rng.uniform(0.003, 0.04, size=8):
        response[round(delay_s * CLIP_RATE_HZ)] += rng.uniform(-1, 1) * 6 * 10 ** (-3 * delay_s / decay_s)
    response *= 10 ** (-direct_db / 20) / (np.sqrt(np.sum(response**2)) + 1e-12)
    response[0] = 1.0
    size = len(samples) + count - 1
    heard = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)
    return as_float(heard)


def hum(count: int, mains_hz: float, rng: Generator) -> np.ndarray:
    """The mains' hum, of unit RMS: 50 or 60 Hz and its first harmonics."""
    t = np.arange(count) / CLIP_RATE_HZ
    waves = [rng.uniform(0.1, 1) / k * np.sin(2 * np.pi * (k * mains_hz * t + rng.random())) for k in range(1, 8)]
    sound = np.sum(waves, axis=0)
    return as_float(sound / (np.sqrt(np.mean(sound**2)) + 1e-12))


def crowd_of(count: int, voices: Sequence[np.ndarray], rng: Generator) -> np.ndarray:
    """Other people talking: clips of other speakers from random places on, laid over one another."""
    crowd = np.zeros(count, dtype=np.float32)
    for voice in voices:
        if len(voice):
            crowd += np.resize(np.roll(voice, int(rng.integers(len(voice)))), count) * rng.uniform(0.4, 1.0)
    return crowd


def banded(samples: np.ndarray, low_hz: float, high_hz: float) -> np.ndarray:
    """Let a band through: 60 dB less two thirds of an octave outside, by a smooth edge."""
    spectrum = np.fft.rfft(samples)
    hertz = np.maximum(np.fft.rfftfreq(len(samples), 1 / CLIP_RATE_HZ), 1.0)
    octaves = np.maximum(np.maximum(np.log2(low_hz / hertz), np.log2(hertz / high_hz)), 0.0)
    heard = np.fft.irfft(spectrum * 10 ** (-np.minimum(octaves * 90.0, 80.0) / 20), len(samples))
    return as_float(heard)


def telephone(samples: np.ndarray) -> np.ndarray:
    """300 to 3400 Hz, by way of 8 kHz, in a-law's eight bits."""
    return coded(banded(samples, *TELEPHONE_HZ), "alaw")


def resampled(samples: np.ndarray, via_hz: int) -> np.ndarray:
    """To another rate and back: what lies above half of it is gone."""
    there = soxr.resample(samples, CLIP_RATE_HZ, via_hz)
    return _fitted(soxr.resample(there, via_hz, CLIP_RATE_HZ), len(samples))


def coded(samples: np.ndarray, codec: str) -> np.ndarray:
    """Through a lossy codec (one of ``CODECS``) and back; as long as before, without the codec's delay."""
    to_float = av.AudioResampler(format="flt", layout="mono", rate=CLIP_RATE_HZ)
    with av.open(_encoded(samples, codec), "r") as file:
        heard = [p.to_ndarray()[0] for f in file.decode(audio=0) for p in to_float.resample(f)]
        heard += [p.to_ndarray()[0] for p in to_float.resample(None)]
    return _aligned(np.concatenate(heard), samples)


def _encoded(samples: np.ndarray, codec: str) -> io.BytesIO:
    container, encoder, rate, bits = CODECS[codec]
    sound = samples if rate == CLIP_RATE_HZ else soxr.resample(samples, CLIP_RATE_HZ, rate)
    frame = av.AudioFrame.from_ndarray((np.clip(sound, -1, 1) * 32767).astype("<i2")[None], "s16", "mono")
    frame.sample_rate = rate
    frame.time_base = Fraction(1, rate)
    frame.pts = 0
    stored = io.BytesIO()
    with av.open(stored, "w", format=container) as file:
        track = file.add_stream(encoder, rate=rate, layout="mono")
        assert isinstance(track, av.AudioStream)
        track.bit_rate = bits
        fit = av.AudioResampler(format=track.format, layout="mono", rate=rate, frame_size=track.frame_size or None)
        for piece in [*fit.resample(frame), *fit.resample(None)]:
            file.mux(track.encode(piece))
        file.mux(track.encode(None))
    stored.seek(0)
    return stored


def _fitted(samples: np.ndarray, count: int) -> np.ndarray:
    return as_float(np.pad(samples, (0, max(0, count - len(samples))))[:count])


def _aligned(heard: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Shift by the delay (0 to 0.1 s) at which it is most like the original."""
    room_for = CLIP_RATE_HZ // 10
    padded = _fitted(heard, len(samples) + room_for)
    size = len(padded) + len(samples)
    match = np.fft.irfft(np.fft.rfft(padded, size) * np.conj(np.fft.rfft(samples, size)), size)[:room_for]
    delay = int(match.argmax())
    return padded[delay : delay + len(samples)]


def with_own_voice(samples: np.ndarray, own: np.ndarray, delay_s: float, below_db: float) -> np.ndarray:
    """The machine's own voice leaks from its loudspeaker into the microphone, so much quieter than the speech."""
    late = np.concatenate([np.zeros(round(delay_s * CLIP_RATE_HZ), np.float32), own])
    return mixed(samples, _fitted(late, len(samples)), below_db)


# ---------------------------------------------------------------- a recording


def as_recorded(samples: np.ndarray, rng: Generator, others: Callable[[Generator], np.ndarray]) -> np.ndarray:
    """A clip as one of many microphones would give it: (W,) float32 in [-1, 1], often longer.

    others: draws a clip of another speaker. A third of the clips have little done to them.
    """
    out = speed(samples, rng.uniform(0.92, 1.08)) if rng.random() < 0.5 else samples
    if rng.random() < 0.15:
        out = paused(out, rng.uniform(0.2, 1.2), rng)
    out = _with_silence(out, rng)
    if rng.random() < 0.33:
        return _finished(out, rng, clean=True)
    if rng.random() < 0.35:
        out = in_a_room(out, rng.uniform(0.1, 0.8), rng.uniform(-3, 10), rng)
    out = _with_noise(out, rng, others)
    if rng.random() < 0.15:
        out = banded(out, rng.uniform(60, 300), rng.uniform(2800, 7000))
    return _through_a_line(_finished(out, rng, clean=False), rng)


def _with_silence(samples: np.ndarray, rng: Generator) -> np.ndarray:
    lead = rng.uniform(0, 3) if rng.random() < 0.35 else rng.uniform(0, 0.3)
    trail = rng.uniform(0, 3) if rng.random() < 0.35 else rng.uniform(0, 0.3)
    return surrounded(samples, lead, trail, rng.uniform(-75, -45) if rng.random() < 0.6 else None, rng)


def _with_noise(samples: np.ndarray, rng: Generator, others: Callable[[Generator], np.ndarray]) -> np.ndarray:
    kind = rng.random()
    if kind < 0.45:
        colour = SLOPES_DB[str(rng.choice(list(SLOPES_DB)))]
        return mixed(samples, coloured(len(samples), colour, rng), rng.uniform(3, 30))
    if kind < 0.6:
        crowd = crowd_of(len(samples), [others(rng) for _ in range(int(rng.integers(1, 5)))], rng)
        return mixed(samples, crowd, rng.uniform(8, 25))
    if kind < 0.7:
        return mixed(samples, hum(len(samples), float(rng.choice([50.0, 60.0])), rng), rng.uniform(5, 25))
    if kind < 0.77:
        return with_own_voice(samples, others(rng), rng.uniform(0.05, 0.8), rng.uniform(10, 25))
    return samples


def _finished(samples: np.ndarray, rng: Generator, clean: bool) -> np.ndarray:
    """The gain: usual levels, whispers and shouts; then what a converter does at its ends."""
    if not clean and rng.random() < 0.12:
        out = clipped(samples, rng.uniform(3, 25))
    else:
        out = at_level(samples, rng.uniform(-32, -14) if clean or rng.random() < 0.7 else rng.uniform(-50, -10))
    if not clean and rng.random() < 0.08:
        out = out + np.float32(rng.uniform(-0.1, 0.1))
    return as_float(np.clip(out, -1.0, 1.0))


def _through_a_line(samples: np.ndarray, rng: Generator) -> np.ndarray:
    kind = rng.random()
    if kind < 0.08:
        return as_float(np.clip(telephone(samples), -1, 1))
    if kind < 0.2:
        return as_float(np.clip(coded(samples, str(rng.choice(["opus", "mp3", "mulaw"]))), -1, 1))
    if kind < 0.28:
        return as_float(np.clip(resampled(samples, int(rng.choice([8000, 11025, 22050]))), -1, 1))
    return samples
