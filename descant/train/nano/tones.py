"""A voice without a synthesiser: each letter is a short sound of its own, so that pico can learn to speak in a test."""

from __future__ import annotations

import string

import numpy as np

from descant.config import OUTPUT_RATE_HZ

LETTER_S = 0.04  # seconds: one code, so that text and speech run in step and a minute's training is enough
PAUSE_S = 0.04  # at both ends
PITCH_HZ = 180.0  # Hz


class Tones:
    """A teacher voice (see ``speech_data.Teacher``): harmonics under two peaks whose places spell the letter."""

    phones = ("pau", *string.ascii_lowercase)

    def speak(self, text: str) -> tuple[np.ndarray, list[tuple[str, float]]]:
        """Letters of ``text`` one after the other; everything else is a pause of one letter's length."""
        sounds = [np.zeros(round(PAUSE_S * OUTPUT_RATE_HZ), dtype=np.float32)]
        phones = [("pau", PAUSE_S)]
        for letter in text.lower().rstrip("."):
            known = letter in string.ascii_lowercase
            sounds.append(letter_sound(letter) if known else np.zeros(round(LETTER_S * OUTPUT_RATE_HZ), np.float32))
            phones.append((letter if known else "pau", phones[-1][1] + LETTER_S))
        sounds.append(sounds[0])
        phones.append(("pau", phones[-1][1] + PAUSE_S))
        return np.concatenate(sounds), phones

    def provenance(self) -> dict[str, str]:
        return {"generator": "descant.train.nano.tones", "version": "1", "voice": "tones", "licence": "Apache-2.0"}


def letter_sound(letter: str) -> np.ndarray:
    """Samples (W,) float32: harmonics of PITCH under two peaks, at one of 6 low and one of 5 high places."""
    low, high = divmod(ord(letter) - ord("a"), 5)
    peaks = (400.0 + 250.0 * low, 2400.0 + 900.0 * high)  # Hz
    t = np.arange(round(LETTER_S * OUTPUT_RATE_HZ)) / OUTPUT_RATE_HZ
    frequencies = np.arange(1, 40) * PITCH_HZ
    gains = np.exp(-(((frequencies - np.array(peaks)[:, None]) / 200.0) ** 2)).sum(0)
    wave: np.ndarray = (gains[:, None] * np.sin(2 * np.pi * frequencies[:, None] * t)).sum(0)
    edge = np.minimum(1.0, np.minimum(t, t[::-1]) / 0.004)
    sound: np.ndarray = (0.15 * wave * edge).astype(np.float32)
    return sound
