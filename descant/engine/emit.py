"""Results of the stages -> the events of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from descant.config import OUTPUT_RATE_HZ
from descant.engine.session import Phase, Session, SpeechStream
from descant.engine.writing import Written
from descant.errors import SessionError
from descant.types import AudioChunk, Called, TextDelta

Wave = npt.NDArray[np.float32]


def write_text(session: Session, text: str) -> None:
    """Text that became readable, as an event (none while a character is still incomplete)."""
    if not text:
        return
    now = session.now()
    if session.first_text_s is None:
        session.first_text_s = now
    stream = session.text
    stream.pieces.append(text)
    stream.told += len(text)
    tokens = tuple(chance for begin, chance in stream.chances if begin < stream.told)
    del stream.chances[: len(tokens)]
    session.events.append(TextDelta(text, now, tokens))


def emit_written(session: Session, what: Sequence[Written]) -> None:
    """Text and calls that are complete, as events."""
    for piece in what:
        if isinstance(piece, str):
            write_text(session, piece)
        else:
            session.text.calls.append(piece)
            session.events.append(Called(piece, session.now()))


def end_text(session: Session, reason: Literal["stop", "length"]) -> None:
    """The text is complete."""
    session.reason = reason
    session.enter(Phase.SPEAKING)
    emit_written(session, session.text.writing.finish(reason))


def emit_audio(session: Session, speech: SpeechStream, samples: Wave) -> None:
    """Sound that became ready, as an event. SessionError: it is not numbers, and nobody gets to hear it."""
    if not len(samples):
        return
    if not np.isfinite(samples).all():
        raise SessionError("the sound is not numbers: the settings of its Decoding, or the weights, are broken")
    now = session.now()
    start = speech.samples
    if session.first_audio_s is None:
        session.first_audio_s = now
    speech.samples += len(samples)
    session.events.append(AudioChunk(samples, start, OUTPUT_RATE_HZ, now))
