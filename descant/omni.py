"""The user's object: one model, loaded, that answers in text and in a voice at the same time."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from descant.checks import check_plain, check_type, is_finite_number
from descant.config import OmniConfig
from descant.engine.answer import Answer
from descant.engine.engine import Engine
from descant.engine.grammar import GrammarCompiler
from descant.engine.graphs import StepMode
from descant.engine.limits import Limits
from descant.engine.live import LiveSession
from descant.engine.models import Models, codes_beyond_table, offloaded_encoders
from descant.engine.options import check_options, stops_of
from descant.engine.passages import READ_SHARE, passages
from descant.engine.sampling import SEED_END, check_sampling, check_seed
from descant.engine.session import AnswerSettings, Request, SessionTerms
from descant.engine.stages import NO_VOICE
from descant.errors import OptionError, shortened
from descant.inputs.prompt import PromptBuilder, check_text
from descant.inputs.tokenizer import TOOL_CALL, TOOL_CALL_END, Tokenizer
from descant.inputs.turn import TurnFormatter
from descant.model.codec import PreparedVoice, decoding_for
from descant.plan import DevicePlanner
from descant.tokens import PromptTokens
from descant.tools import Tool, ToolUse
from descant.types import (
    READ_ALOUD,
    TRANSCRIBE,
    AnswerOptions,
    Audio,
    Budget,
    ChatInput,
    Decoding,
    Dtype,
    Finished,
    Latency,
    Memory,
    Transcript,
    user,
)
from descant.weights.checkpoint import Checkpoint, as_device, load_checkpoint

if TYPE_CHECKING:
    from descant.types import Source

__all__ = ["Answer", "Limits", "LiveSession", "Omni", "load"]

DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Whose pages of the cache an answer may share, where its options name no tenant: set by who serves many.
TENANT: ContextVar[str] = ContextVar("tenant", default="")
log = logging.getLogger(__name__)
STEP_MODES = (None, "off", "graphs", "compile")


def load(
    name: str | Path = "nano",
    *,
    dtype: Dtype | None = None,
    device: str | None = None,
    latency: Latency | Decoding = "balanced",
    limits: Limits | None = None,
    budget: Budget | None = None,
    step_mode: StepMode | None = None,
    progress: bool = False,
) -> Omni:
    """Load a model: ``"nano"`` (embedded), a folder, or ``"org/repo"`` (fetched through huggingface-hub).

    dtype: None is that of the files, float32 on a CPU. device: None is the CPU. limits: how much is served at once;
    None: the defaults of ``Limits``, or on a GPU what its memory holds (``descant inspect --plan``), which is logged.
    budget: how much media may cost. step_mode: how decode steps run, "off" (eagerly), as CUDA "graphs", or "compile"
    (torch.compile); None: graphs where there is CUDA. where steps are graphs, they are
    captured here (``Omni.warm_up``). progress: draw a bar meanwhile.
    Raises OptionError (unknown name or option), ConfigError, WeightsError.
    """
    if dtype is not None and (not isinstance(dtype, str) or dtype not in DTYPES):
        raise OptionError(f"unknown dtype {shortened(dtype)}; choose one of {', '.join(DTYPES)}")
    check_type("name", name, (str, Path))
    check_type("latency", latency, (str, Decoding))
    if not isinstance(latency, Decoding):
        decoding_for(latency)  # a wrong word is found before the weights are read
    check_plain("device", device, "str | None")
    planner = None
    if as_device(device).type == "cuda":
        chosen = latency if isinstance(latency, Decoding) else None
        planner = DevicePlanner(str(name), str(device), chosen, limited=limits is not None)
    checkpoint = load_checkpoint(name, dtype and DTYPES[dtype], device, progress, check_tokenizer, planner)
    if planner is not None and planner.plan is not None:
        limits = limits or planner.plan.limits
    omni = Omni(checkpoint, latency, limits, budget=budget, step_mode=step_mode)
    omni.warm_up(progress)
    return omni


def check_tokenizer(folder: Path, config: OmniConfig) -> None:
    """Refuse a folder whose tokenizer is not that of its model."""
    Tokenizer.from_folder(folder).check_fits(config.thinker)


def models_of(checkpoint: Checkpoint) -> Models:
    """The weights and ids of a checkpoint that the engine needs, and its voices, prepared."""
    generation, talker, token2wav = checkpoint.generation, checkpoint.talker, checkpoint.token2wav
    stops = frozenset(generation.stop_codes)
    banned = frozenset(generation.suppressed_codes)
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
        {} if token2wav is None else {name: token2wav.prepare_voice(v) for name, v in checkpoint.voices.items()},
        offloaded_encoders(checkpoint.thinker),
    )


class Omni:
    """One set of weights that serves any number of answers at once, from any thread. Nothing of an answer is kept here.

    Its engine works on a thread of its own, from the first answer on until ``close``. Methods that begin with ``a`` are
    for event loops: what is slow in them (opening media, laying a prompt out) runs on another thread.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        latency: Latency | Decoding = "balanced",
        limits: Limits | None = None,
        *,
        budget: Budget | None = None,
        step_mode: StepMode | None = None,
    ):
        check_type("limits", limits, (Limits, type(None)))
        check_type("budget", budget, (Budget, type(None)))
        check_plain("step_mode", step_mode, "str | None")
        if step_mode not in STEP_MODES:
            raise OptionError(f"step_mode={shortened(step_mode)} is unknown; choose off, graphs or compile")
        self.checkpoint = checkpoint
        self.decoding = self._decoding(latency)
        checkpoint.parts.prepare()
        self.models = models_of(checkpoint)
        cfg = checkpoint.config.thinker
        self.builder = PromptBuilder(self.models.tokenizer, checkpoint.inputs, cfg, budget or Budget())
        self.engine = Engine(self.models, limits, step_mode)

    def warm_up(self, progress: bool = False) -> None:
        """Capture decode steps and the codec's windows at this model's latency, where they are replayed as graphs, and
        answer once in silence, so that every kernel has been there; before the first answer, and elsewhere nothing.
        progress: draw a bar meanwhile."""
        steps = self.engine.warm_up(self._settings({"speech": self.speaks}))
        left = next(steps, None)
        if left is None:
            return
        begin = time.perf_counter()
        console = Console(stderr=True, quiet=not progress)
        for _ in track(steps, "warming up", total=left, console=console, transient=True):
            pass
        spoken = self.models.talker is not None
        for _ in self.speak("Hello.", seed=0) if spoken else self.chat("Hello.", max_tokens=4, seed=0, speech=False):
            pass
        log.info("warmed up: %d steps and windows in %.1f s", left + 1, time.perf_counter() - begin)

    def drain(self, timeout_s: float | None = None) -> bool:
        """Take no new request, and wait until all that was asked is answered; then ``close`` cuts nobody off.

        Returns False if that took longer than ``timeout_s`` (None: wait for ever).
        """
        if timeout_s is not None and not (is_finite_number(timeout_s) and 0 <= timeout_s <= threading.TIMEOUT_MAX):
            raise OptionError(f"timeout_s={shortened(timeout_s)} is no time; give seconds, 0 or more, or None")
        return self.engine.drain(None if timeout_s is None else float(timeout_s))

    def close(self) -> None:
        """Cancel what is being answered and end the engine's thread. It also ends when nobody holds any of this."""
        self.engine.close()

    @property
    def speaks(self) -> bool:
        """True if this model has a Talker, a codec decoder and a voice."""
        return self.models.talker is not None and self.models.token2wav is not None and bool(self.checkpoint.voices)

    @property
    def voices(self) -> tuple[str, ...]:
        """Names for ``voice=``; the first is the default."""
        return tuple(self.checkpoint.voices) if self.speaks else ()

    def chat(self, messages: ChatInput, **options: Unpack[AnswerOptions]) -> Answer:
        """Answer a conversation: TextDelta and AudioChunk as they come, Progress where there is a wait, then Finished.

        messages: a string, a Message, a list of messages, or the JSON form of the model card and of OpenAI's parts.
        Options and media are checked at once (OptionError, MediaError; BusyError when too many wait). The answer is
        made from then on, beside all others; cancelling or dropping it stops that.
        """
        clock = time.perf_counter()
        settings = self._settings(options)
        return self._submit(Request(self._prompt(messages, options), settings, clock))

    def speak(self, text: str, **options: Unpack[AnswerOptions]) -> Answer:
        """Read a text aloud, word for word: the same events as ``chat``, with the reply given instead of drawn.

        A text that is longer than the Talker can speak at once is read passage by passage, in one stream of sound.
        Options that choose the words (sampling, max_tokens, speech=False) mean nothing here and are an OptionError.
        """
        clock = time.perf_counter()
        check_plain("text", text, "str")
        if not text.strip():
            raise OptionError("nothing to say: the text is empty")
        for name in ("sampling", "max_tokens", "speech", "tools", "schema", "stop", "logprobs"):
            if options.get(name) is not None and options.get(name) is not True:
                raise OptionError(f"{name} has no meaning when a given text is read aloud; leave it out")
        settings = self._settings(options)
        check_text([text], options.get("budget") or self.builder.budget)
        first, *rest = self._readings(text, settings, options, clock)
        return self._submit(replace(first, rest=tuple(rest)))

    def transcribe(self, audio: Audio | Source, *, max_tokens: int | None = None) -> Transcript:
        """Write down what is said in a sound: an Audio, a path, or the bytes of a file. The text is a string that also
        tells whether it was cut (``reason``)."""
        sound = audio if isinstance(audio, Audio) else Audio(audio)
        events = self.chat([user(sound, TRANSCRIBE)], speech=False, max_tokens=max_tokens)
        finished = next(event for event in events if isinstance(event, Finished))
        written = Transcript(finished.text)
        written.finished = finished
        return written

    def session(
        self, *, instructions: str | None = None, memory: Memory | None = None, **options: Unpack[AnswerOptions]
    ) -> LiveSession:
        """Open a live session: it hears and sees while its user speaks and shows, and answers when asked.

        instructions: the system turn (None: the model's own). memory: how long the conversation may grow, and what
        happens then. options: of every answer; seed is that of the first answer, each later one takes the next.
        """
        check_plain("instructions", instructions, "str | None")
        check_type("memory", memory, (Memory, type(None)))
        memory = memory or Memory()
        most = self.checkpoint.config.thinker.text.max_position_embeddings
        if memory.full not in ("drop", "refuse") or (memory.tokens is not None and not 0 < memory.tokens <= most):
            raise OptionError(f"{memory} is impossible; tokens: 1 to {most}, full: 'drop' or 'refuse'")
        settings = self._settings(options)
        room = min(memory.tokens or most, self.engine.limits.tokens)
        self.engine.start()
        budget = options.get("budget")
        terms = SessionTerms(settings, instructions, room, memory.full == "drop", budget)
        return LiveSession(self.engine, TurnFormatter(self.builder), terms)

    def trace(
        self, messages: ChatInput, *, max_text: int, max_codes: int, voice: str | None = None
    ) -> dict[str, Tensor]:
        """The deterministic greedy pass, for comparison with other implementations; see ``descant.engine.trace``."""
        for name, value in (("max_text", max_text), ("max_codes", max_codes)):
            check_plain(name, value, "int")
            if value < 1:
                raise OptionError(f"{name}={value} is impossible; allowed: 1 or more")
        settings = self._settings({"voice": voice, "speech": self.speaks, "seed": 0})
        text = replace(settings.text, temperature=0.0, max_tokens=max_text)
        speech = replace(settings.speech, temperature=0.0, max_tokens=max_codes)
        # the template's own default system turn, which is what another implementation would put there
        prompt = self._prompt(messages, {"speech": False})
        return self.engine.trace(Request(prompt, replace(settings, text=text, speech=speech)))

    # ------------------------------------------------------------ for event loops

    async def achat(self, messages: ChatInput, **options: Unpack[AnswerOptions]) -> Answer:
        """``chat`` for an event loop: ``async for event in await omni.achat(...)``."""
        return await asyncio.to_thread(self.chat, messages, **options)

    async def aspeak(self, text: str, **options: Unpack[AnswerOptions]) -> Answer:
        """``speak`` for an event loop."""
        return await asyncio.to_thread(self.speak, text, **options)

    async def asession(
        self, *, instructions: str | None = None, memory: Memory | None = None, **options: Unpack[AnswerOptions]
    ) -> LiveSession:
        """``session`` for an event loop; of the session, use the methods that begin with ``a``."""
        return await asyncio.to_thread(self.session, instructions=instructions, memory=memory, **options)

    async def atranscribe(self, audio: Audio | Source, *, max_tokens: int | None = None) -> Transcript:
        """``transcribe`` for an event loop."""
        return await asyncio.to_thread(self.transcribe, audio, max_tokens=max_tokens)

    async def adrain(self, timeout_s: float | None = None) -> bool:
        """``drain`` for an event loop."""
        return await asyncio.to_thread(self.drain, timeout_s)

    # ------------------------------------------------------------ inside

    def _readings(self, text: str, settings: AnswerSettings, options: AnswerOptions, clock: float) -> list[Request]:
        """The requests to read a text aloud, passage by passage. The space between two is written, and not spoken."""
        seconds = self.models.token2wav.code_s * settings.speech.max_tokens if self.models.token2wav else 0.0
        parts = list(passages(text, READ_SHARE * seconds))
        requests: list[Request] = []
        lead = ""
        for part in parts:
            spoken = part if part is parts[-1] else part.rstrip()
            if not spoken.strip():
                lead += part
                continue
            forced = tuple(self.models.tokenizer.encode(spoken))
            written = replace(settings.text, max_tokens=len(forced) + 1)
            prompt = self._prompt(READ_ALOUD.format(text=spoken), options)
            requests.append(Request(prompt, replace(settings, text=written, forced=forced), clock, lead))
            lead = part[len(spoken) :]
        return requests

    def _submit(self, request: Request) -> Answer:
        self.engine.start()
        return self.engine.submit(request)

    def _settings(self, options: AnswerOptions) -> AnswerSettings:
        """The options of an answer, checked and filled in."""
        check_options(options)
        generation = self.checkpoint.generation
        text = options.get("sampling") or generation.text
        speech = options.get("talker_sampling") or generation.speech
        max_tokens = options.get("max_tokens")
        if max_tokens is not None:
            text = replace(text, max_tokens=max_tokens)
        check_sampling(text, "text")
        check_sampling(speech, "speech")
        seed = options.get("seed")
        seed = secrets.randbelow(SEED_END) if seed is None else seed
        check_seed(seed)
        latency = options.get("latency")
        decoding = self.decoding if latency is None else self._decoding(latency)
        voice = self._voice(options.get("voice")) if options.get("speech", True) else None
        use = self._tool_use(options.get("tools"))
        schema = options.get("schema")
        strict = use is not None and use.choice != "none" and any(tool.strict for tool in use.tools)
        return AnswerSettings(
            text,
            speech,
            decoding,
            seed,
            voice,
            tenant=options.get("tenant", TENANT.get()),
            tools=use,
            grammar=None if schema is None else self._grammars.compile(schema),
            logprobs=options.get("logprobs"),
            stops=stops_of(options),
            call_grammar=self._grammars.compile_calls(use.tools) if use is not None and strict else None,
        )

    @cached_property
    def _grammars(self) -> GrammarCompiler:
        """The compiler of schemas for this model. OptionError: llguidance is not installed."""
        vocab = self.checkpoint.config.thinker.text.vocab_size
        return GrammarCompiler(self.models.tokenizer, vocab, self.models.stop_ids)

    def _tool_use(self, given: Sequence[Tool] | ToolUse | None) -> ToolUse | None:
        """The tools of an answer; None: there are none."""
        use = given if isinstance(given, ToolUse) else ToolUse(tuple(given or ()))
        if use.tools and not all(self.models.tokenizer.has_special(name) for name in (TOOL_CALL, TOOL_CALL_END)):
            raise OptionError("this model cannot call tools: its tokenizer has no tokens for that; leave them out")
        return use if use.tools else None

    def _decoding(self, latency: Latency | Decoding) -> Decoding:
        """The dial's meaning for this model; a Decoding is taken as it is."""
        if isinstance(latency, Decoding):
            return latency
        return self.checkpoint.generation.decoding(latency, decoding_for(latency))

    def _voice(self, name: str | None) -> PreparedVoice:
        if self.models.talker is not None and not self.checkpoint.voices:
            raise OptionError(
                f"the model has a Talker and no voice: {self.checkpoint.folder} lacks its voices. Copy spk_dict.pt of "
                "the model that it was made from there, or ask with speech=False"
            )
        if not self.speaks:
            raise OptionError(NO_VOICE)
        name = self.voices[0] if name is None else name
        if name not in self.voices:
            raise OptionError(f"unknown voice {shortened(name)}; this model has {', '.join(self.voices)}")
        return self.models.voices[name]

    def _prompt(self, messages: ChatInput, options: AnswerOptions) -> PromptTokens:
        builder = self.builder.with_budget(options.get("budget"))
        use = self._tool_use(options.get("tools"))
        tools = () if use is None else use.tools
        return builder.build(messages, speech=options.get("speech", True), tools=tools)
