"""The user's object: one model, loaded, that answers in text and in a voice at the same time."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from descant.engine import trace as tracing
from descant.engine.engine import Engine
from descant.engine.limits import Limits
from descant.engine.live import LiveSession, Terms
from descant.engine.sampling import SEED_END, check_sampling, check_seed
from descant.engine.session import Models, Request, codes_beyond_table
from descant.errors import OptionError
from descant.inputs.prompt import build_prompt
from descant.inputs.tokenizer import Tokenizer
from descant.inputs.turn import Scribe
from descant.model.codec import decoding_for
from descant.types import (
    READ_ALOUD,
    TRANSCRIBE,
    Audio,
    Decoding,
    Event,
    Finished,
    Latency,
    Memory,
    Message,
    Prompt,
    Sampling,
    Voice,
    user,
)
from descant.weights.checkpoint import Checkpoint, load_checkpoint

if TYPE_CHECKING:
    from descant.types import Source

DType = Literal["float32", "bfloat16", "float16"]
NO_PROMPT = Prompt(torch.empty(0, dtype=torch.int64), torch.empty(3, 0, dtype=torch.int64), 0)
DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(
    name: str | Path = "nano",
    *,
    dtype: DType | None = None,
    device: str | None = None,
    latency: Latency | Decoding = "balanced",
    limits: Limits | None = None,
    progress: bool = False,
) -> Omni:
    """Load a model: ``"nano"`` (embedded), a folder, or ``"org/repo"`` (fetched through huggingface-hub).

    dtype None: what the files hold, float32 on a CPU. device None: the CPU. limits: how much is served at once.
    ``progress`` draws a bar meanwhile.
    Raises OptionError (unknown name or option), ConfigError, WeightsError.
    """
    if dtype is not None and dtype not in DTYPES:
        raise OptionError(f"unknown dtype {dtype!r}; choose one of {', '.join(DTYPES)}")
    if not isinstance(latency, Decoding):
        decoding_for(latency)  # a wrong word is found before the weights are read
    check_device(device)
    return Omni(load_checkpoint(name, dtype and DTYPES[dtype], device, progress), latency, limits)


def check_device(device: str | None) -> None:
    """Refuse a device that this machine, or this torch, does not have."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch says "not compiled with CUDA" by an AssertionError
        raise OptionError(f"device {device!r} cannot be used ({error}); try 'cpu'") from None


def models_of(checkpoint: Checkpoint) -> Models:
    """What the engine needs of a checkpoint."""
    generation, talker, token2wav = checkpoint.generation, checkpoint.talker, checkpoint.token2wav
    stops, banned = frozenset(generation.stop_codes), frozenset(generation.suppressed_codes)
    if talker is not None and token2wav is not None:
        banned |= codes_beyond_table(talker, token2wav, stops)
    return Models(
        checkpoint.thinker,
        talker,
        token2wav,
        Tokenizer.from_folder(checkpoint.folder),
        frozenset(generation.stop_ids),
        stops,
        banned,
    )


class Omni:
    """One set of weights that serves any number of answers at once, from any thread. Nothing of an answer is kept here.

    Its engine works on a thread of its own, from the first answer on until ``close``.
    """

    def __init__(self, checkpoint: Checkpoint, latency: Latency | Decoding = "balanced", limits: Limits | None = None):
        self.checkpoint = checkpoint
        self.decoding = self._decoding(latency)
        checkpoint.parts.prepare()
        self.models = models_of(checkpoint)
        self.engine = Engine(self.models, limits)

    def close(self) -> None:
        """Cancel what is being answered and end the engine's thread. It also ends when nobody holds any of this."""
        self.engine.close()

    @property
    def speaks(self) -> bool:
        """Whether this model has a Talker, a codec decoder and a voice."""
        return self.models.talker is not None and self.models.token2wav is not None and bool(self.checkpoint.voices)

    @property
    def voices(self) -> tuple[str, ...]:
        """Names for ``voice=``; the first is the default."""
        return tuple(self.checkpoint.voices) if self.speaks else ()

    def chat(
        self,
        messages: Sequence[Message],
        *,
        voice: str | None = None,
        speech: bool = True,
        sampling: Sampling | None = None,
        talker_sampling: Sampling | None = None,
        max_tokens: int | None = None,
        seed: int | None = None,
        latency: Latency | Decoding | None = None,
    ) -> Iterator[Event]:
        """Answer a conversation, event by event: TextDelta and AudioChunk as they come, then Finished.

        Options and media are checked at once (OptionError, MediaError; BusyError when too many wait); the answer is
        made from then on, beside all others. Closing the iterator cancels it. ``max_tokens`` overrides that of
        ``sampling``; ``seed`` makes text, codes and sound reproducible. Samplings left out are the model's own.
        """
        options = Options(voice, speech, sampling, talker_sampling, max_tokens, seed, latency)
        return self._answer(messages, options)

    def speak(
        self,
        text: str,
        *,
        voice: str | None = None,
        talker_sampling: Sampling | None = None,
        seed: int | None = None,
        latency: Latency | Decoding | None = None,
    ) -> Iterator[Event]:
        """Read a text aloud, word for word: the same events as ``chat``, with the reply given instead of drawn."""
        forced = tuple(self.models.tokenizer.encode(text))
        if not text.strip():
            raise OptionError("nothing to say: the text is empty")
        options = Options(voice, True, None, talker_sampling, len(forced) + 1, seed, latency)
        return self._answer([user(READ_ALOUD.format(text=text))], options, forced)

    def transcribe(self, audio: Audio | Source, *, max_tokens: int | None = None) -> str:
        """Write down what is said in a sound."""
        heard = audio if isinstance(audio, Audio) else Audio(audio)
        events = self.chat([user(heard, TRANSCRIBE)], speech=False, max_tokens=max_tokens)
        return next(event.text for event in events if isinstance(event, Finished))

    def trace(
        self, messages: Sequence[Message], *, max_text: int, max_codes: int, voice: str | None = None
    ) -> dict[str, Tensor]:
        """The deterministic greedy pass, for comparison with other implementations; see ``descant.engine.trace``."""
        for name, value in (("max_text", max_text), ("max_codes", max_codes)):
            if value < 1:
                raise OptionError(f"{name}={value} is impossible; allowed: 1 or more")
        request = self._request(messages, Options(voice, self.speaks, seed=0))
        # the template's own default system turn, which is what another implementation would put there
        request = replace(request, prompt=self._prompt(messages, speech=False))
        text = replace(request.text, temperature=0.0, max_tokens=max_text)
        speech = replace(request.speech, temperature=0.0, max_tokens=max_codes)
        return tracing.trace(self.models, replace(request, text=text, speech=speech))

    def session(
        self,
        *,
        voice: str | None = None,
        instructions: str | None = None,
        speech: bool = True,
        sampling: Sampling | None = None,
        talker_sampling: Sampling | None = None,
        seed: int | None = None,
        latency: Latency | Decoding | None = None,
        memory: Memory | None = None,
    ) -> LiveSession:
        """Open a live session: it hears and sees while its user speaks and shows, and answers when asked.

        instructions: the system turn (None: the model's own). memory: how long the conversation may grow, and what
        happens then. seed: of the first answer; each later one takes the next. The rest as in ``chat``.
        """
        memory, most = memory or Memory(), self.checkpoint.config.thinker.text.max_position_embeddings
        if memory.full not in ("drop", "refuse") or (memory.tokens is not None and not 0 < memory.tokens <= most):
            raise OptionError(f"{memory} is impossible; tokens: 1 to {most}, full: 'drop' or 'refuse'")
        request = self._asked(Options(voice, speech, sampling, talker_sampling, None, seed, latency))
        room = min(memory.tokens or most, self.engine.limits.tokens)
        scribe = Scribe(self.models.tokenizer, self.checkpoint.inputs, self.checkpoint.config.thinker)
        self.engine.start()
        return LiveSession(self.engine, scribe, Terms(request, instructions, room, memory.full == "drop"))

    def _answer(
        self, messages: Sequence[Message], options: Options, forced: tuple[int, ...] | None = None
    ) -> Iterator[Event]:
        clock = time.perf_counter()
        request = replace(self._request(messages, options), forced=forced, clock=clock)
        self.engine.start()
        return iter(self.engine.submit(request))

    def _request(self, messages: Sequence[Message], options: Options) -> Request:
        """Everything checked and read, before anything is computed."""
        request = self._asked(options)
        return replace(request, prompt=self._prompt(messages, speech=options.speech))

    def _asked(self, options: Options) -> Request:
        """The options of an answer, checked and filled in; its prompt is still to come."""
        generation = self.checkpoint.generation
        text, speech = options.sampling or generation.text, options.talker_sampling or generation.speech
        if options.max_tokens is not None:
            text = replace(text, max_tokens=options.max_tokens)
        check_sampling(text, "text")
        check_sampling(speech, "speech")
        seed = secrets.randbelow(SEED_END) if options.seed is None else options.seed
        check_seed(seed)
        decoding = self.decoding if options.latency is None else self._decoding(options.latency)
        voice = self._voice(options.voice) if options.speech else None
        return Request(NO_PROMPT, text, speech, decoding, seed, voice)

    def _decoding(self, latency: Latency | Decoding) -> Decoding:
        """The dial's meaning for this model; a Decoding is taken as it is."""
        if isinstance(latency, Decoding):
            return latency
        return self.checkpoint.generation.decoding(latency, decoding_for(latency))

    def _voice(self, name: str | None) -> Voice:
        if not self.speaks:
            raise OptionError("this model has no voice: it comes without a Talker; ask with speech=False")
        name = self.voices[0] if name is None else name
        if name not in self.voices:
            raise OptionError(f"unknown voice {name!r}; this model has {', '.join(self.voices)}")
        return self.checkpoint.voices[name]

    def _prompt(self, messages: Sequence[Message], *, speech: bool) -> Prompt:
        checkpoint = self.checkpoint
        ids = checkpoint.config.thinker.ids
        return build_prompt(messages, self.models.tokenizer, checkpoint.inputs, ids, speech=speech)


@dataclass(frozen=True)
class Options:
    """The options of one answer as they were given."""

    voice: str | None = None
    speech: bool = True
    sampling: Sampling | None = None
    talker_sampling: Sampling | None = None
    max_tokens: int | None = None
    seed: int | None = None
    latency: Latency | Decoding | None = None
