"""What all drivers use: the address, the media, what is asserted of an answer. Nothing but Python's own."""

from __future__ import annotations

import array
import asyncio
import os
import wave
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path

URL = os.environ["DESCANT_URL"]
KEY = os.environ["DESCANT_KEY"]
MEDIA = Path(os.environ["DESCANT_MEDIA"])
SOCKET_URL = URL.replace("http", "ws", 1)
QUESTION = "What is nine plus nine?"
ANSWER = "nine plus nine is eighteen"
PICTURE_ANSWER = "i see three shapes"  # to question.wav, of stars.png
COLOUR_ANSWER = "the colour is blue"  # of stars.png
RATE_HZ = 24_000
BLOCK_S = 0.1  # of sound that a microphone gives at once
MICROPHONE_S = 20  # of silence after the question, while the answer is awaited


def plain(text: str) -> str:
    """Lower case letters and digits only."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def check_text(text: str, expected: str = ANSWER) -> None:
    assert plain(text) == expected, f"the answer is {text!r}, expected {expected!r}"


def check_heard(text: str) -> None:
    """An answer to the spoken question. nano may sum it wrongly after a long silence, and how much silence a turn ends
    in depends on how soon a loaded machine judges it."""
    assert plain(text).startswith("nine plus nine is"), f"the answer is {text!r}, which is not to {QUESTION!r}"


def check_sound(pcm: bytes, rate_hz: int = RATE_HZ) -> None:
    """Sound that may be a sentence: 1 to 5 s, and loud enough to be heard."""
    assert len(pcm) % 2 == 0, "half a sample"
    samples = array.array("h", pcm)
    seconds = len(samples) / rate_hz
    assert 1 < seconds < 5, f"{seconds:.2f} s of sound"
    loudness = (sum(s * s for s in samples) / len(samples)) ** 0.5 / 32768
    assert loudness > 0.02, f"the sound is silent: {loudness:.4f} of full scale"


def question_pcm(rate_hz: int = RATE_HZ, name: str = "sum") -> bytes:
    """A spoken question as 16-bit PCM: QUESTION, or "What colour is it?" (``colour``)."""
    with wave.open(str(MEDIA / f"{name}-{rate_hz}.wav")) as file:
        return file.readframes(file.getnframes())


def blocks(pcm: bytes, rate_hz: int = RATE_HZ, *, silence_s: float = 1.0) -> list[bytes]:
    """PCM with silence after it, as a microphone gives it: 100 ms each."""
    whole = pcm + bytes(2 * round(silence_s * rate_hz))
    step = 2 * round(BLOCK_S * rate_hz)
    return [whole[start : start + step] for start in range(0, len(whole), step)]


async def microphone(send: Callable[[bytes], Awaitable[None]]) -> None:
    """Say the question in real time, then silence: so a server that judges the end by what was said has the time."""
    for block in blocks(question_pcm(), silence_s=MICROPHONE_S):
        await send(block)
        await asyncio.sleep(BLOCK_S)


def passed(package: str, what: str) -> None:
    """The line that a driver ends with."""
    print(f"{package} {version(package)}: {what}: passed", flush=True)
