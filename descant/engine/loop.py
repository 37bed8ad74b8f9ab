"""The loop that makes an answer: think one token, sing one code, decode what is ready, emit.

Text never waits for sound, nor sound for the whole text: one turn is one token, at most one code (the Talker eats
exactly one reply row for a code, and waits when the Thinker is behind) and at most one codec window. When the text is
complete the Talker runs on by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from descant.engine.session import ENDS, RATE, Models, Phase, Request, Session, Speech, finished, open_session
from descant.errors import DescantError, SessionError
from descant.model.decoder import sequential_positions
from descant.model.talker import Talker, opening_rows, prompt_rows, reply_rows, step_row
from descant.types import AudioChunk, Event, Prompt, TextDelta

log = logging.getLogger(__name__)


def stream(models: Models, request: Request) -> Iterator[Event]:
    """The events of one answer, made while they are iterated. Impossible windows are an OptionError at once."""
    return run(models, open_session(models, request))


def run(models: Models, session: Session) -> Iterator[Event]:
    """All turns of one session. Closing the iterator cancels it; a failure is a SessionError and harms nothing else."""
    try:
        yield from turns(models, session)
    except DescantError:
        session.enter(Phase.FAILED)
        raise
    except Exception as error:  # the request boundary: whatever went wrong belongs to this session alone
        failed_in = session.phase
        log.exception("session %s failed in phase %s", session.id, failed_in.value)
        session.enter(Phase.FAILED)
        reason = f"{type(error).__name__}: {error}"
        raise SessionError(f"failed while {failed_in.value}: {reason}. The model is unharmed; ask again") from error
    finally:
        if session.phase not in ENDS:
            session.enter(Phase.CANCELLED)


def turns(models: Models, session: Session) -> Iterator[Event]:
    """admit -> (think -> talk -> decode -> emit)* -> Finished."""
    admit(models, session)
    while session.phase not in ENDS:
        yield from think(models, session)
        talk(models, session)
        yield from decode(models, session)
        settle(session)
    yield finished(session)


@torch.inference_mode()
def admit(models: Models, session: Session) -> None:
    """Read the prompt: encoders, then the Thinker over all of it; keep its rows for the Talker."""
    thinker, prompt, thought = models.thinker, session.request.prompt, session.thought
    embeds = thinker.embed(prompt)
    positions = prompt.positions.to(embeds.device)[:, None]
    hidden, _ = thinker(embeds[None], positions, thought.cache)
    thought.hidden = hidden[:, -1:].clone()  # a copy, so that the prompt's other rows can be freed
    if session.speech is not None:
        media = thinker.media_mask(prompt.ids.to(embeds.device))
        session.speech.prompt = prompt_rows(embeds, hidden[0], media)
    session.enter(Phase.THINKING)


@torch.inference_mode()
def think(models: Models, session: Session) -> list[Event]:
    """Choose one token, and consume it: the row of a consumed token is what the Talker eats.

    The stop token is never consumed and has no row. The last token before the length limit is consumed all the same
    when there is speech: its word must be spoken.
    """
    if session.phase is not Phase.THINKING:
        return []
    thought, limit = session.thought, session.request.text.max_tokens
    assert thought.hidden is not None
    chosen = thought.choose(models.thinker.logits(thought.hidden[0, -1]))
    if chosen in models.stop_ids:
        return end_text(session, "stop")
    thought.ids.append(chosen)
    events = write(session, thought.writer.push(chosen))
    full = len(thought.ids) >= limit
    speaking = session.speech is not None and not session.speech.over
    if speaking or not full:
        consume(models, session, chosen)
    return events + end_text(session, "length") if full else events


def consume(models: Models, session: Session, token: int) -> None:
    """Feed one token to the Thinker; its row (hidden + embedding) joins the Talker's queue."""
    thinker, thought = models.thinker, session.thought
    assert thought.hidden is not None
    embed = thinker.embed_tokens(torch.tensor([[token]], device=thinker.device))
    position = session.request.prompt.next_position + len(thought.ids) - 1
    thought.hidden, _ = thinker(embed, sequential_positions(1, position, 1, thinker.device), thought.cache)
    if session.speech is not None and not session.speech.over:
        session.speech.rows.append(reply_rows(embed, thought.hidden)[0, 0])


def write(session: Session, text: str) -> list[Event]:
    """Text that became readable, as an event (none while a character is still incomplete)."""
    if not text:
        return []
    now = session.now()
    if session.first_text is None:
        session.first_text = now
    session.thought.pieces.append(text)
    return [TextDelta(text, now)]


def end_text(session: Session, reason: Literal["stop", "length"]) -> list[Event]:
    """The text is complete; an answer without a single row has nothing to say aloud."""
    session.reason = reason
    speech = session.speech
    if speech is not None and not speech.rows and speech.prompt is not None:
        speech.over = True
    session.enter(Phase.SPEAKING)
    return write(session, session.thought.writer.flush())


@torch.inference_mode()
def talk(models: Models, session: Session) -> None:
    """Sing one code, if there is a row for it."""
    speech, talker = session.speech, models.talker
    if speech is None or talker is None or speech.over:
        return
    reply = next_reply_row(models, session, speech)
    if reply is None:
        return  # the Thinker is behind: feeding the pad row now would change the answer
    rows, positions = talker_input(models, talker, session.request.prompt, speech, reply)
    hidden, _ = talker.decoder(talker.proj(rows), positions, speech.cache)
    code = speech.choose(talker.codec_head(hidden[0, -1]).float())
    if code in models.stop_codes:
        speech.over = True
    else:
        speech.codes.append(code)
        speech.over = len(speech.codes) >= session.request.speech.max_tokens
    if speech.over:
        speech.rows.clear()


def next_reply_row(models: Models, session: Session, speech: Speech) -> Tensor | None:
    """The head of the text stream, (E,): reply rows, then text_end once, then text_pad for ever; None: wait."""
    if speech.rows:
        return speech.rows.popleft()
    if session.phase is Phase.THINKING:
        return None
    row = speech.tail[1 if speech.ended else 0]
    speech.ended = True
    return row


def talker_input(
    models: Models, talker: Talker, prompt: Prompt, speech: Speech, reply: Tensor
) -> tuple[Tensor, Tensor]:
    """What the Talker reads to sing the next code: its prefill once, then one row for each code.

    reply (E,) -> rows (1, T, E), positions (3, 1, T).
    """
    if speech.prompt is None:
        row = step_row(talker, torch.tensor(speech.codes[-1], device=talker.device), reply)
        position = prompt.next_position + 1 + len(speech.codes)  # the speaker's row and the first row come before
        return row[None, None], sequential_positions(1, position, 1, talker.device)
    bos = models.thinker.embed_tokens(torch.tensor(speech.voice.bos_token, device=talker.device))
    rows = opening_rows(talker, speech.prompt, bos, reply)
    speech.prompt = None
    positions = torch.cat([prompt.positions, sequential_positions(1, prompt.next_position, 2)[:, 0]], 1)
    return rows[None], positions[:, None].to(talker.device)


@torch.inference_mode()
def decode(models: Models, session: Session) -> list[Event]:
    """Push the codes that are new; emit the sound that is ready."""
    speech, token2wav = session.speech, models.token2wav
    if speech is None or token2wav is None or speech.drained:
        return []
    fresh, speech.pushed = speech.codes[speech.pushed :], len(speech.codes)
    pieces = []
    if fresh:
        samples, speech.codec = token2wav.push(speech.codec, fresh)
        pieces.append(samples)
    if speech.over:
        samples, speech.codec = token2wav.finish(speech.codec)
        pieces.append(samples)
        speech.drained = True
    sound = torch.cat(pieces) if pieces else torch.empty(0)
    if not len(sound):
        return []
    now, start = session.now(), speech.samples
    if session.first_audio is None:
        session.first_audio = now
    speech.samples += len(sound)
    return [AudioChunk(sound.float().cpu().numpy(), start, RATE, now)]


def settle(session: Session) -> None:
    """An answer is done when its text is complete and its sound, if any, is out."""
    if session.phase is Phase.SPEAKING and (session.speech is None or session.speech.drained):
        session.enter(Phase.DONE)
