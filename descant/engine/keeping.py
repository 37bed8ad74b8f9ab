"""The results of the stages' passes, kept in the session that each belongs to: the commits of ``boundary.together``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor

from descant.engine.chances import Noted, note_chances
from descant.engine.prefill import Chunk
from descant.engine.sampling import BROKEN_ID
from descant.engine.session import Phase, Session, TextStream
from descant.errors import SessionError

Draw = tuple[int, Noted | None]  # an id, and its note


def keep_chunk(session: Session, chunk: Chunk, logits: Tensor | None) -> None:
    """Count the tokens that were read; logits (V,) behind the last one of the prompt begin the answer."""
    chunk.keep()
    if session.phase is Phase.PREFILL:
        session.prefilled += len(chunk)
    if logits is not None:
        session.text.logits = logits
        session.enter(Phase.THINKING)


def noted_draws(texts: Sequence[TextStream], ids: Tensor, logits: Tensor) -> list[Draw]:
    """The draws ids (B,) from logits (B, V), with the notes that some want; here the host waits for them."""
    return list(zip(ids.tolist(), note_chances(logits, ids, [text.logprobs for text in texts]), strict=True))


def keep_draw(session: Session, drawn: Draw) -> None:
    """Keep the id that is written next."""
    session.text.drawn, session.text.noted = drawn
    session.text.sampler.keep(drawn[0])


def keep_state(session: Session, made: tuple[Tensor, Tensor, Tensor, Noted | None]) -> None:
    """Keep the state of the token that was read back, which is queued for the Talker, and the id (1,) that comes next,
    still on the device."""
    state, session.text.logits, late, noted = made
    session.text.unread = False
    session.text.kv.advance(1)
    if session.reply_states is not None:
        session.reply_states.append(state)
    if session.speech is not None and session.speech.singing:
        session.speech.states.extend(session.text.writing.heard(state))
    if session.phase is Phase.THINKING:
        session.text.late, session.text.noted = late, noted


def keep_scores(session: Session, made: tuple[Tensor, Tensor]) -> None:
    """Keep the codes (K,) that come next, still on the device, and the logits that drew the first of them."""
    speech = session.speech
    assert speech is not None
    speech.inputs = []
    speech.logits, speech.late = made


def drawn_ids(sessions: Sequence[Session]) -> list[list[list[int]]]:
    """The ids of ``Session.late``, in one copy of all; here the host waits for the device."""
    ids = iter(torch.cat([part for session in sessions for part in session.late]).tolist())
    return [[list(islice(ids, len(part))) for part in session.late] for session in sessions]


def keep_drawn(session: Session, ids: Sequence[list[int]]) -> None:
    """Keep the ids that were drawn, now that they are known."""
    text, speech, parts = session.text, session.speech, iter(ids)
    if text.late is not None:
        text.late = None
        keep_draw(session, (next(parts)[0], text.noted))
    if speech is not None and speech.late is not None:
        speech.late, speech.drawn = None, next(parts)


def check_id(drawn: int | None) -> int:
    """The id that was drawn. SessionError where the logits were not numbers."""
    assert drawn is not None
    if drawn == BROKEN_ID:
        raise SessionError("the model's scores are not numbers: the input, or the weights, are broken")
    return drawn
