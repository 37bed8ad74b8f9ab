"""The stages of a step, each over all the sessions that are ready for it: read, think, talk, decode.

Text never waits for sound, nor sound for the whole text: a step is one token, at most one code (the Talker eats exactly
one reply row for a code, and waits when the Thinker is behind) and at most one codec window. When the text is complete
the Talker runs on by itself. A session that fails leaves alone: what several share is a forward pass, and a pass that
fails is tried again with each of them by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from descant.engine.context import Context
from descant.engine.sampling import BROKEN, Choose, drawn
from descant.engine.session import RATE, Models, Phase, Session, Speech
from descant.errors import DescantError, SessionError
from descant.model.talker import Talker, first_row, prompt_rows, reply_rows, speaker_row, step_row
from descant.nn.pages import Batch
from descant.types import AudioChunk, Event, TextDelta

log = logging.getLogger(__name__)


def take(session: Session) -> list[Event]:
    """The events that are new, and none of a cancelled session."""
    fresh, session.out = session.out, []
    return [] if session.phase is Phase.CANCELLED else fresh


def fenced(groups: Sequence[Sequence[Session]], act: Callable[[Sequence[Session]], None]) -> None:
    """The request boundary: ``act`` on every group. A group that fails is tried one by one; who fails alone, ends."""
    for group in groups:
        try:
            with torch.inference_mode():
                act(group)
        except Exception as error:  # whatever went wrong belongs to one session alone
            if len(group) > 1:
                fenced([[session] for session in group], act)
            else:
                fail(group[0], error)


def fail(session: Session, error: Exception) -> None:
    """End a session with the error that its user gets."""
    phase = session.phase
    if isinstance(error, DescantError):
        session.error = error
    else:
        log.error("session %s failed in phase %s", session.id, phase.value, exc_info=error)
        reason = f"{type(error).__name__}: {error}"
        session.error = SessionError(f"failed while {phase.value}: {reason}. The model is unharmed; ask again")
        session.error.__cause__ = error
    session.enter(Phase.FAILED)


def read(models: Models, session: Session, tokens: int | None = None) -> None:
    """Read the next ``tokens`` rows (None: all): the Thinker, and the Talker behind it."""
    context, thinker, talker = session.context, models.thinker, models.talker
    if not context.thinker_kv.length:
        context.adopt()
    room = context.unread if tokens is None else tokens
    if talker is not None and context.behind:
        room -= follow(talker, context, room)
    start = context.thinker_kv.length
    stop = min(start + room, len(context.tokens))
    if stop == start:
        return
    embeds = context.embeds(thinker, start, stop)[None]
    positions = context.tokens.positions[:, None, start:stop].to(thinker.device)
    batch = Batch([context.thinker_kv], stop - start)
    hidden, _ = thinker(embeds, positions, batch, batch.mask)
    if talker is not None and context.talker_kv is not None:
        rows = talker.proj(prompt_rows(embeds, hidden, context.tokens.filled()[start:stop].to(thinker.device)))
        talker.decoder(rows, positions, Batch([context.talker_kv], stop - start))
    if session.phase is Phase.PREFILL:
        session.prefilled += stop - start
        if stop == len(context.tokens):
            logits = thinker.logits(hidden[0, -1])
            if bool(logits.sum().isfinite()):  # what gave no numbers is nobody else's, and its first draw will say so
                context.publish()
            session.thought.logits = logits
            session.enter(Phase.THINKING)


def follow(talker: Talker, context: Context, most: int) -> int:
    """The Talker reads what only the Thinker has read, a reply; returns how many rows."""
    sung = context.talker_kv
    assert sung is not None
    rows = torch.stack(context.reply_states[: min(most, context.behind)])
    positions = context.tokens.positions[:, None, sung.length : sung.length + len(rows)].to(talker.device)
    talker.decoder(talker.proj(rows[None]), positions, Batch([sung], len(rows)))
    del context.reply_states[: len(rows)]
    return len(rows)


def think(models: Models, sessions: Sequence[Session]) -> None:
    """Write one token in every session that thinks, and consume it: its row is what the Talker eats.

    The stop token is never consumed and has no row. The last token before the length limit is consumed all the same
    when there is speech: its word must be spoken.
    """
    thinking = [session for session in sessions if session.phase is Phase.THINKING]
    ids = draw([(s, s.thought.choose, s.thought.logits) for s in thinking])
    fenced([[s] for s in thinking if id(s) in ids], lambda group: choose_token(models, group[0], ids[id(group[0])]))
    hungry = [session for session in thinking if not session.ended and session.thought.logits is None]
    fenced([hungry] if hungry else [], lambda group: consume(models, group))


def draw(wanted: Sequence[tuple[Session, Choose, Tensor | None]]) -> dict[int, int]:
    """What each session draws from its logits, by the session's identity; the host waits once for all of them.

    A session that fails is left out.
    """
    ids: dict[int, Tensor] = {}
    found: dict[int, int] = {}

    def one(group: Sequence[Session]) -> None:
        choose, logits = next((choose, logits) for session, choose, logits in wanted if session is group[0])
        assert logits is not None
        ids[id(group[0])] = drawn(choose, logits)

    def fetch(group: Sequence[Session]) -> None:
        words = torch.stack([ids[id(session)] for session in group]).tolist()
        found.update(zip(map(id, group), words, strict=True))

    sessions = [session for session, _, _ in wanted]
    fenced([[session] for session in sessions], one)
    alive = [session for session in sessions if id(session) in ids]
    fenced([alive] if alive else [], fetch)
    return found


def choose_token(models: Models, session: Session, chosen: int) -> None:
    """Write the id that was drawn; logits None afterwards says that it is to be consumed."""
    thought, limit = session.thought, session.request.text.max_tokens
    check_id(chosen)
    if chosen in models.stop_ids:
        end_text(session, "stop")
        return
    thought.ids.append(chosen)
    write(session, thought.writer.push(chosen))
    full = len(thought.ids) >= limit
    if not full or (session.speech is not None and not session.speech.over):
        thought.logits = None
    if full:
        end_text(session, "length")


def check_id(chosen: int) -> None:
    """Refuse an id whose logits were not numbers."""
    if chosen == BROKEN:
        raise SessionError("the model's scores are not numbers: the input, or the weights, are broken")


def consume(models: Models, sessions: Sequence[Session]) -> None:
    """Feed the Thinker the token that each session has just written; its row (hidden + embedding) joins the Talker's
    queue."""
    thinker, thoughts = models.thinker, [session.thought for session in sessions]
    embeds = thinker.embed_tokens(torch.tensor([[thought.ids[-1]] for thought in thoughts], device=thinker.device))
    at = [s.context.tokens.next_position + len(s.thought.ids) - 1 for s in sessions]
    hidden, logits = models.steps.thinker(embeds, each_at(at, thinker.device), [thought.cache for thought in thoughts])
    rows = reply_rows(embeds, hidden)[:, 0]
    for session, scores, row in zip(sessions, logits, rows, strict=True):
        session.thought.logits = scores
        if session.kept is not None:
            session.kept.append(row)
        if session.speech is not None and not session.speech.over:
            session.speech.rows.append(row)


def each_at(positions: Sequence[int], device: torch.device) -> Tensor:
    """One text position for each row of a batch, (3, B, 1) int64."""
    return torch.tensor(positions, device=device).expand(3, -1)[..., None]


def write(session: Session, text: str) -> None:
    """Text that became readable, as an event (none while a character is still incomplete)."""
    if not text:
        return
    now = session.now()
    if session.first_text is None:
        session.first_text = now
    session.thought.pieces.append(text)
    session.out.append(TextDelta(text, now))


def end_text(session: Session, reason: Literal["stop", "length"]) -> None:
    """The text is complete; an answer without a single row has nothing to say aloud."""
    session.reason = reason
    speech = session.speech
    if speech is not None and not session.thought.ids:
        speech.over = True
    session.enter(Phase.SPEAKING)
    write(session, session.thought.writer.flush())


def talk(models: Models, sessions: Sequence[Session]) -> None:
    """Sing one code in every session that has a row for it."""
    ready = [s for s in sessions if s.phase in (Phase.THINKING, Phase.SPEAKING) and s.speech and not s.speech.over]
    fenced([[session] for session in ready], lambda group: lay_out(models, group[0]))
    fed = [s for s in ready if not s.ended and s.speech and s.speech.feed is not None]
    first, later = ([s for s in fed if bool(s.speech and s.speech.codes) is begun] for begun in (False, True))
    fenced([[session] for session in first] + ([later] if later else []), lambda group: sing(models, group))
    ids = draw([(s, s.speech.choose, s.speech.logits) for s in fed if not s.ended and s.speech])
    fenced([[s] for s in fed if id(s) in ids], lambda group: choose_code(models, group[0], ids[id(group[0])]))


def lay_out(models: Models, session: Session) -> None:
    """What the Talker reads to sing the next code: speaker's and first row, then one row for each code.

    Nothing when the Thinker is behind: feeding the pad row now would change the answer.
    """
    speech, talker = session.speech, models.talker
    assert speech is not None and talker is not None
    reply = next_reply_row(session, speech)
    if reply is None:
        return
    if speech.codes:
        speech.feed = step_row(talker, torch.tensor(speech.codes[-1:], device=talker.device), reply)
        return
    bos = models.thinker.embed_tokens(torch.tensor(speech.voice.bos_token, device=talker.device))
    speech.feed = torch.stack((speaker_row(talker, bos), first_row(talker, reply)))


def next_reply_row(session: Session, speech: Speech) -> Tensor | None:
    """The head of the text stream, (E,): reply rows, then text_end once, then text_pad for ever; None: wait."""
    if speech.rows:
        return speech.rows.popleft()
    if session.phase is Phase.THINKING:
        return None
    row = speech.tail[1 if speech.ended else 0]
    speech.ended = True
    return row


def sing(models: Models, sessions: Sequence[Session]) -> None:
    """One pass of the Talker over the rows that were laid out; several sessions bring one row each."""
    talker, voices = models.talker, [session.speech for session in sessions if session.speech is not None]
    assert talker is not None
    rows = torch.stack([speech.feed for speech in voices if speech.feed is not None])
    new = rows.shape[1]
    last = [s.context.tokens.next_position + 1 + len(v.codes) for s, v in zip(sessions, voices, strict=True)]
    at = each_at(last, talker.device) + torch.arange(1 - new, 1, device=talker.device)
    (logits,) = models.steps.talker(rows, at, [speech.cache for speech in voices])
    for speech, scores in zip(voices, logits[:, -1], strict=True):
        speech.logits, speech.feed = scores, None


def choose_code(models: Models, session: Session, chosen: int) -> None:
    """Keep the code that was drawn, or end the sound."""
    speech = session.speech
    assert speech is not None
    check_id(chosen)
    speech.logits = None
    if chosen in models.stop_codes:
        speech.over = True
    else:
        speech.codes.append(chosen)
        speech.over = len(speech.codes) >= session.request.speech.max_tokens
    if speech.over:
        speech.rows.clear()


def decode(models: Models, sessions: Sequence[Session]) -> None:
    """Feed the codes that are new; make one window of sound in every session that has one ready."""
    speaking = [s for s in sessions if not s.ended and s.speech and not s.speech.drained]
    fenced([[session] for session in speaking], lambda group: feed(models, group[0]))
    ready = [s for s in speaking if not s.ended and s.speech and not s.speech.drained and has_work(models, s.speech)]
    fenced([ready] if ready else [], lambda group: sound(models, group))


def feed(models: Models, session: Session) -> None:
    """Give the codec decoder what the Talker has sung since; and say when that was all."""
    speech, token2wav = session.speech, models.token2wav
    assert speech is not None and token2wav is not None
    fresh, speech.pushed = speech.codes[speech.pushed :], len(speech.codes)
    if fresh:
        speech.codec = token2wav.feed(speech.codec, fresh)
    if speech.over and not speech.codec.finished:
        speech.codec = token2wav.close(speech.codec)
    speech.drained = speech.codec.finished and not token2wav.due(speech.codec)


def has_work(models: Models, speech: Speech) -> bool:
    """Whether the codec decoder would move on: codes that it has not, an end that it was not told of, or a window."""
    told = len(speech.codes) == speech.pushed and speech.codec.finished is speech.over
    return not told or (models.token2wav is not None and models.token2wav.due(speech.codec))


def missing(models: Models, speech: Speech) -> int:
    """Codes that the next window lacks, those counted that the codec decoder has not been given yet."""
    assert models.token2wav is not None
    return models.token2wav.missing(speech.codec) - (len(speech.codes) - speech.pushed)


def sound(models: Models, sessions: Sequence[Session]) -> None:
    """One window of each session, all in one batch."""
    token2wav, voices = models.token2wav, [session.speech for session in sessions if session.speech is not None]
    assert token2wav is not None
    made = token2wav.step([speech.codec for speech in voices])
    for session, speech, (samples, codec) in zip(sessions, voices, made, strict=True):
        speech.codec = codec
        speech.drained = codec.finished and not token2wav.due(codec)
        emit(session, speech, samples)


def emit(session: Session, speech: Speech, samples: Tensor) -> None:
    """Sound that became ready, as an event."""
    if not len(samples):
        return
    now, start = session.now(), speech.samples
    if session.first_audio is None:
        session.first_audio = now
    speech.samples += len(samples)
    session.out.append(AudioChunk(samples.float().cpu().numpy(), start, RATE, now))


def settle(session: Session) -> None:
    """An answer is done when its text is complete and its sound, if any, is out."""
    if session.phase is Phase.SPEAKING and (session.speech is None or session.speech.drained):
        session.enter(Phase.DONE)
