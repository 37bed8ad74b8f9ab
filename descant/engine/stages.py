"""The stages of a step, each over all the sessions that are ready for it: read, think, talk, decode.

Text never waits for sound, nor sound for the whole text: a step is one token, at most one code (the Talker eats exactly
one reply state a code, and waits when the Thinker is behind) and at most one codec window. When the text is complete
the Talker runs on by itself, and may sing several codes a step. A session that fails leaves alone: what several share
is a forward pass, and a pass that fails is tried again with each of them by itself. Nothing of a session moves before
the pass that it shares is through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from descant.config import TalkerConfig
from descant.engine.boundary import each, together
from descant.engine.chances import Noted, note_chances, token_chance
from descant.engine.context import Context
from descant.engine.emit import Wave, emit_audio, emit_written, end_text
from descant.engine.following import step_on
from descant.engine.grammar import Constraint
from descant.engine.graphs import DecodeSteps, StepMode, StepRow
from descant.engine.keeping import (
    Draw,
    check_id,
    drawn_ids,
    keep_chunk,
    keep_draw,
    keep_drawn,
    keep_scores,
    keep_state,
    noted_draws,
)
from descant.engine.models import Models, Stores
from descant.engine.prefill import Chunk, encode_media, next_chunk, read_chunks, read_replies
from descant.engine.regions import GraphRegions
from descant.engine.sampling import BROKEN_ID, Sampler, reciting
from descant.engine.session import (
    AnswerSettings,
    Phase,
    Request,
    Session,
    SpeechPhase,
    SpeechStream,
    TextStream,
    split_seed,
)
from descant.engine.writing import Writing, begun_call
from descant.errors import OptionError
from descant.inputs.tokenizer import TOOL_CALL
from descant.model.codec import CodecState, Token2Wav
from descant.model.talker import Talker, speaker_row, tail_rows
from descant.nn.pages import PageTable

NOBODY = reciting(())  # draws where nothing is to be drawn
NO_VOICE = "this model has no voice: it comes without a Talker; ask with speech=False"


class Stages:
    """The models of one engine, its stores and its step buffers, and what is done with them. One thread at a time."""

    def __init__(self, models: Models, stores: Stores, step_mode: StepMode | None = None, sessions: int = 3):
        self.models = models
        self.stores = stores
        self.steps = DecodeSteps(models.thinker, models.talker, step_mode, sessions + 1)
        self.regions = GraphRegions(self.steps.mode)
        self._speakers: dict[int, Tensor] = {}

    @property
    def talker(self) -> Talker:
        if self.models.talker is None:
            raise OptionError(NO_VOICE)
        return self.models.talker

    @property
    def token2wav(self) -> Token2Wav:
        if self.models.token2wav is None:
            raise OptionError(NO_VOICE)
        return self.models.token2wav

    # ------------------------------------------------------------ sessions

    def new_context(self, *, speech: bool, tenant: str = "") -> Context:
        """An empty context with page tables of its own."""
        if speech and self.stores.talker is None:
            raise OptionError(NO_VOICE)
        talker_kv = PageTable(self.stores.talker) if speech and self.stores.talker else None
        return Context(PageTable(self.stores.thinker), talker_kv, tenant)

    @torch.inference_mode()
    def open(self, request: Request) -> Session:
        """A new session in phase PREFILL, over a context of its own."""
        settings = request.settings
        context = self.new_context(speech=settings.voice is not None, tenant=settings.tenant)
        context.set_tokens(request.prompt)
        return self.answer_in(context, settings, request.clock)

    @torch.inference_mode()
    def answer_in(self, context: Context, settings: AnswerSettings, clock: float) -> Session:
        """A new session in phase PREFILL, over a context whose tokens are set; the last of them is still to be read."""
        context.reopen()
        text_seed, speech_seed, noise_seed = split_seed(settings.seed)
        thinker = self.models.thinker
        start = context.tokens.next_position
        constraint = None
        if settings.grammar is not None or settings.call_grammar is not None:
            calls = settings.tools is not None and settings.tools.choice != "none"
            constraint = Constraint(settings.grammar, settings.call_grammar, calls=calls)
        sampler = self.text_sampler(settings, context, text_seed, constraint)
        writing = Writing(self.models.tokenizer, settings.tools, settings.stops)
        text = TextStream(sampler, writing, context.thinker_kv, start, settings.text.max_tokens)
        text.constraint = constraint
        text.logprobs = settings.logprobs
        if settings.voice is None or context.talker_kv is None:
            return Session(clock, context, text)
        seen = code_prompt(self.talker.cfg)
        sampler = Sampler(settings.speech, seed=speech_seed, prompt=seen, banned=self.models.banned_codes)
        codec = self.token2wav.start(settings.voice, noise_seed, settings.decoding)
        tail = tail_rows(thinker, self.talker.cfg)
        limit = settings.speech.max_tokens
        return Session(
            clock,
            context,
            text,
            SpeechStream(settings.voice, sampler, context.talker_kv, codec, tail, start, limit),
        )

    def text_sampler(
        self, settings: AnswerSettings, context: Context, seed: int, constraint: Constraint | None
    ) -> Sampler:
        """The draws of an answer's ids."""
        tokenizer = self.models.tokenizer
        use = settings.tools
        if settings.forced is not None:
            return reciting((*settings.forced, min(self.models.stop_ids)))
        banned = [tokenizer.special(TOOL_CALL)] if use is not None and use.choice == "none" else []
        begun = begun_call(tokenizer, use) if use is not None else ()
        sampler = Sampler(settings.text, seed=seed, prompt=context.tokens.ids, banned=banned, forced=begun)
        sampler.allowed = None if constraint is None else constraint.allowed
        return sampler

    def listen_in(self, context: Context) -> Session:
        """A live session between two answers: tokens are read as they come."""
        text = TextStream(reciting(()), Writing(self.models.tokenizer), context.thinker_kv, 0, 0)
        return Session(0.0, context, text, reply_states=[], phase=Phase.LISTENING)

    # ------------------------------------------------------------ read

    def read(self, rooms: Mapping[Session, int]) -> None:
        """Read the next tokens of each session's prompt, at most as many as it is given: the Thinker, and the Talker
        behind it. Encoders, Thinker and Talker make one pass each for all.
        """
        ready = each(rooms, lambda session: session.context.adopt())
        late = {session: min(rooms[session], session.context.behind) for session in ready if session.context.behind}
        together(list(late), lambda group: self.follow(group, late), lambda session, read: session.context.heard(read))
        chunks = {s: self.next_chunk(s, rooms[s] - late.get(s, 0)) for s in ready if not s.ended}
        due = [session for session, chunk in chunks.items() if len(chunk)]
        together(
            [session for session in due if chunks[session].unseen],
            lambda group: encode_media(self.models, [chunks[session] for session in group]),
            lambda session, features: chunks[session].keep_features(features),
        )
        together(
            [session for session in due if not session.ended],
            lambda group: self.read_chunks(group, chunks),
            lambda session, logits: keep_chunk(session, chunks[session], logits),
        )

    def next_chunk(self, session: Session, room: int) -> Chunk:
        """The chunk that a session reads next; behind the last token of a prompt the Talker reads the speaker's row."""
        chunk = next_chunk(session.context, room)
        if session.speech is None or session.phase is not Phase.PREFILL or chunk.stop < len(session.context.tokens):
            return chunk
        return replace(chunk, speaker=self.speaker(session.speech.voice.bos_token))

    def speaker(self, token: int) -> Tensor:
        """The speaker's row (E,) of a voice; made once."""
        if token not in self._speakers:
            thinker = self.models.thinker
            bos = thinker.embed_tokens(torch.tensor(token, device=thinker.device))
            self._speakers[token] = speaker_row(self.talker, bos)
        return self._speakers[token]

    def follow(self, sessions: Sequence[Session], counts: Mapping[Session, int]) -> list[int]:
        """Have the Talker read what only the Thinker has read; returns how many tokens, of each session."""
        return read_replies(self.talker, [session.context for session in sessions], [counts[s] for s in sessions])

    def read_chunks(self, sessions: Sequence[Session], chunks: Mapping[Session, Chunk]) -> list[Tensor | None]:
        """One pass over a chunk of each session -> logits (V,) where that is the end of a prompt, else None."""
        thinker = self.models.thinker
        states = read_chunks(thinker, self.models.talker, [chunks[session] for session in sessions])
        complete = [s.phase is Phase.PREFILL and chunks[s].stop == len(s.context.tokens) for s in sessions]
        ends = [state for state, last in zip(states, complete, strict=True) if last]
        logits = iter(thinker.logits(torch.stack(ends)) if ends else ())
        return [next(logits) if last else None for last in complete]

    # ------------------------------------------------------------ think

    def think(self, sessions: Sequence[Session]) -> None:
        """Write one token in every session that thinks, and read it back: its state is what the Talker eats, and its
        scores draw the next token. Nothing waits for the ids; see ``settle``.

        The stop token is never read back and has no state. The last token before the length limit is read back all the
        same when there is speech: its word must be spoken.
        """
        self.settle(sessions)
        thinking = [session for session in sessions if session.phase is Phase.THINKING]
        together([session for session in thinking if session.text.drawn is None], self.draw_first, keep_draw)
        alive = each([session for session in thinking if not session.ended], self.choose_token)
        together([session for session in alive if session.text.unread], self.read_back, keep_state)
        for session in alive:
            if session.phase is Phase.SPEAKING and session.speech is not None:
                session.speech.end_text(session.text.writing.rest())

    def draw_first(self, sessions: Sequence[Session]) -> list[Draw]:
        """Draw the first id of each answer from the scores behind its prompt."""
        texts = [session.text for session in sessions]
        logits = torch.stack([text.logits for text in texts if text.logits is not None])
        ids = self.steps.thinker.draws.draw([text.sampler for text in texts], logits)
        return noted_draws(texts, ids, logits)

    def choose_token(self, session: Session) -> None:
        """Write the id that was drawn, and say whether it is to be read back."""
        text = session.text
        speech = session.speech
        chosen = check_id(text.drawn)
        text.drawn = None
        if not text.ids:  # what gave no numbers is nobody else's
            session.context.publish()
        if text.constraint is not None:
            text.constraint.accept(chosen)
        if chosen in self.models.stop_ids:
            end_text(session, "stop")
            return
        text.ids.append(chosen)
        if text.noted is not None:
            text.chances.append((text.writing.length, token_chance(text.noted, self.models.tokenizer)))
        emit_written(session, text.writing.push(chosen))
        if text.writing.silent:
            text.chances.clear()
            if speech is not None:
                speech.end_text()
        complete = text.writing.complete
        over = complete or len(text.ids) >= text.max_tokens
        text.unread = not over or (speech is not None and speech.singing)
        if over:
            end_text(session, "stop" if complete else "length")

    def read_back(self, sessions: Sequence[Session]) -> list[tuple[Tensor, Tensor, Tensor, Noted | None]]:
        """Feed the Thinker the token that each session has just written -> its state (D,) (hidden + embedding), which
        is what the Talker eats, the logits (V,) behind it, the id (1,) that they draw, and its note: nothing that
        counts, if the text is over."""
        texts = [session.text for session in sessions]
        rows = []
        for session, text in zip(sessions, texts, strict=True):
            sampler = text.sampler if session.phase is Phase.THINKING else NOBODY
            rows.append(StepRow(text.kv, text.ids[-1], text.start + len(text.ids) - 1, sampler))
        made = self.steps.thinker(rows)
        notes = note_chances(made.logits, made.ids, [text.logprobs for text in texts])
        return list(zip(made.outputs[0], made.logits, made.ids[:, None], notes, strict=True))

    # ------------------------------------------------------------ talk

    def talk(self, sessions: Sequence[Session], codes: int = 1) -> None:
        """Sing a code in every session that has a state for it; up to so many, where all of them have the states: the
        Talker reads the codes that it has drawn. Nothing waits for them; see ``settle``."""
        self.settle([session for session in sessions if session.speech is not None and session.speech.late is not None])
        answering = (Phase.THINKING, Phase.SPEAKING)
        streams = {s: s.speech for s in sessions if s.phase in answering and s.speech is not None and s.speech.singing}
        run = min((speech.codes_in_hand(codes) for speech in streams.values() if speech.has_state), default=1)
        ready = each(streams, lambda session: self.lay_input(streams[session], run))
        fed = [session for session in ready if streams[session].inputs]
        together(fed, lambda group: self.sing([streams[session] for session in group]), keep_scores)

    def lay_input(self, speech: SpeechStream, count: int) -> None:
        """Lay out the states that the Talker eats to sing the next codes. None when the Thinker is behind: feeding the
        pad state now would change the answer."""
        states = (speech.next_state() for _ in range(count))
        speech.inputs = [state for state in states if state is not None]

    def sing(self, streams: Sequence[SpeechStream]) -> list[tuple[Tensor, Tensor]]:
        """One step of the Talker for each state that was laid out (as many for each stream), the first over the codes
        that were sung last -> the logits (C,) that draw the first code of each stream, and the codes (K,)."""
        start = self.talker.cfg.codec_start_id
        rows = [
            StepRow(s.kv, s.codes[-1] if s.codes else start, s.start + 1 + len(s.codes), s.sampler, s.inputs[0])
            for s in streams
        ]
        made = step_on(self.steps.talker, rows, list(zip(*(s.inputs[1:] for s in streams), strict=True)))
        drawn = made[0].ids[:, None] if len(made) == 1 else torch.stack([step.ids for step in made], dim=1)
        return list(zip(made[0].logits, drawn, strict=True))

    def settle(self, sessions: Sequence[Session]) -> None:
        """Learn what was drawn for these sessions. A step does so when both decoders are at work: the host waits once,
        and what it had to tell is told by then. A stage that needs what is not known yet asks for it by itself."""
        late = [session for session in sessions if session.late]
        if late:
            together(late, drawn_ids, self.keep_known)

    def keep_known(self, session: Session, ids: Sequence[list[int]]) -> None:
        """Keep what was drawn for a session, and choose from the codes."""
        keep_drawn(session, ids)
        if session.speech is not None and session.speech.drawn:
            self.choose_code(session.speech)

    def choose_code(self, speech: SpeechStream) -> None:
        """Keep the codes that were drawn, and end them where it is time; what was sung behind that leaves no trace."""
        drawn = speech.drawn
        ends = (n for n, code in enumerate(drawn, 1) if code in self.models.stop_codes or code == BROKEN_ID)
        chosen = drawn[: next(ends, len(drawn))]
        speech.drawn, speech.logits = [], None
        speech.kv.advance(len(chosen))
        if len(chosen) < len(drawn):
            speech.kv.truncate(speech.kv.length)
        speech.sampler.keep(*chosen)
        speech.codes += [code for code in chosen if check_id(code) not in self.models.stop_codes]
        speech.cut = len(speech.codes) == speech.max_codes
        if speech.cut or chosen[-1] in self.models.stop_codes:
            speech.enter(SpeechPhase.FLUSHING)

    # ------------------------------------------------------------ decode

    def decode(self, sessions: Sequence[Session]) -> None:
        """Feed the codes that are new; make one window of sound in every session that has one ready."""
        self.settle(sessions)
        streams = {session: speech for session in sessions if (speech := session.sounding) is not None}
        fed = each(streams, lambda session: self.feed(streams[session]))
        due = [session for session in fed if self.token2wav.due(streams[session].codec)]
        together(
            due,
            lambda group: self.sounds([streams[session].codec for session in group]),
            lambda session, made: self.keep_sound(session, streams[session], *made),
        )

    def sounds(self, codecs: Sequence[CodecState]) -> list[tuple[Wave, CodecState]]:
        """A window of sound of each stream; all of it comes to the host in one copy."""
        made = self.token2wav.step(codecs, self.regions)
        whole = torch.cat([samples for samples, _ in made]).float().cpu().numpy()
        ends = np.cumsum([len(samples) for samples, _ in made])
        parts = np.split(whole, ends[:-1])
        return [(part.copy(), codec) for part, (_, codec) in zip(parts, made, strict=True)]

    def feed(self, speech: SpeechStream) -> None:
        """Give the codec decoder what the Talker has sung since, and tell it when that was all."""
        codec = speech.codec
        fresh = speech.codes[speech.decoded :]
        if fresh:
            codec = self.token2wav.feed(codec, fresh)
        if not speech.singing and not codec.finished:
            codec = self.token2wav.close(codec)
        speech.codec = codec
        speech.decoded = len(speech.codes)
        self.end_speech_if_done(speech)

    def keep_sound(self, session: Session, speech: SpeechStream, samples: Wave, codec: CodecState) -> None:
        """Keep a window of sound that was made."""
        emit_audio(session, speech, samples)
        speech.codec = codec
        self.end_speech_if_done(speech)

    def end_speech_if_done(self, speech: SpeechStream) -> None:
        if speech.codec.finished and not self.token2wav.due(speech.codec):
            speech.enter(SpeechPhase.DONE)

    def codec_has_work(self, speech: SpeechStream) -> bool:
        """True if the codec decoder lacks input that exists (codes, their end) or has a window ready."""
        given = len(speech.codes) == speech.decoded and speech.codec.finished is not speech.singing
        return not given or self.token2wav.due(speech.codec)

    def missing_codes(self, speech: SpeechStream) -> int:
        """Codes that the next window lacks, those counted that the codec decoder has not been given yet."""
        return self.token2wav.missing_codes(speech.codec) - (len(speech.codes) - speech.decoded)


def code_prompt(cfg: TalkerConfig) -> Tensor:
    """The ids that the Talker's repetition penalty takes for its prompt, (3,): mask (once a token), pad and start."""
    return torch.tensor([cfg.codec_mask_id, cfg.codec_pad_id, cfg.codec_start_id])
