"""Messages in, options, events out: the types of the public interface, and what the model reads in between.

Axis legend used everywhere in descant:
B batch, T time (tokens or frames), S source (keys), H heads, D dim, C codes, M mel bins, W samples, N patches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict

from descant.checks import CheckedOptions
from descant.tools import Tool, ToolCall, ToolResult, ToolUse

if TYPE_CHECKING:  # torch and numpy are heavy; `descant --help` must not pay for them
    from pathlib import Path

    import numpy as np
    from torch import Tensor

    Source = str | Path | bytes  # a path, or the bytes of a file


# ---------------------------------------------------------------- messages


@dataclass(frozen=True)
class Text:
    """Plain text. Strings that look like special tokens stay text."""

    text: str


@dataclass(frozen=True)
class Image:
    """A picture: a path, or the bytes of an image file, or a decoded (H, W, 3) uint8 array."""

    source: Source | np.ndarray


@dataclass(frozen=True)
class Audio:
    """A sound: a path, or the bytes of a file, or float samples (W,) with their ``rate`` in Hz."""

    source: Source | np.ndarray
    rate: int | None = None  # Hz; required with an array, refused otherwise


@dataclass(frozen=True)
class Clip:
    """A decoded video: frames (T, H, W, 3) uint8, ``fps`` a second; sound (W,) float32 at 16 kHz from the first on."""

    frames: np.ndarray
    fps: float
    sound: np.ndarray | None = None


@dataclass(frozen=True)
class Video:
    """A video: a path, the bytes of a file, or a decoded Clip. ``use_audio`` interleaves its sound (TMRoPE); None: if
    it has any."""

    source: Source | Clip
    use_audio: bool | None = False


Part = Text | Image | Audio | Video | ToolCall | ToolResult  # calls: of the assistant; results: of the user's turn
MediaKind = Literal["image", "audio", "video"]
Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: tuple[Part, ...]


# What `chat` takes: a user's text, messages, or the JSON form of the official model card and of OpenAI's content parts.
ChatInput = str | Message | Sequence[Message | Mapping[str, Any]]


def _message(role: Role, parts: tuple[Part | str, ...]) -> Message:
    return Message(role, tuple(Text(p) if isinstance(p, str) else p for p in parts))


def system(*parts: Part | str) -> Message:
    """A system turn."""
    return _message("system", parts)


def user(*parts: Part | str) -> Message:
    """A user turn; bare strings are text: ``user("What is this?", Image("cat.png"))``."""
    return _message("user", parts)


def assistant(*parts: Part | str) -> Message:
    """An assistant turn (what the model said before)."""
    return _message("assistant", parts)


# What `speak` and `transcribe` ask of a model; the trainers use the same words.
READ_ALOUD = "Say: {text}"
TRANSCRIBE = "Write down what you hear."


# ---------------------------------------------------------------- how it answers


@dataclass(frozen=True)
class Sampling(CheckedOptions):
    """The drawing of one token stream. temperature 0 is greedy. The order of processors is the reference's:
    repetition penalty, suppression, temperature, top-k, top-p. presence_penalty, frequency_penalty: taken off the score
    of what was drawn before, once and for each time (-2 to 2, 0 is off); before suppression."""

    temperature: float = 0.0
    top_k: int = 0  # 0: off
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    max_tokens: int = 1024
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0


@dataclass(frozen=True)
class Voice:
    """A speaker. bos_token: a row of the Thinker's embedding table; vector (D,) float32; ref_mel (T, M) float32."""

    name: str
    bos_token: int
    vector: Tensor
    ref_mel: Tensor


@dataclass(frozen=True)
class Memory(CheckedOptions):
    """The most that a live session may grow. tokens: of its context (None: as many as the model was made for).

    full: what happens then: the oldest turns are dropped, media included, and an event says so; or the next answer is
    refused.
    """

    tokens: int | None = None
    full: Literal["drop", "refuse"] = "drop"

    BOUNDS: ClassVar[Mapping[str, tuple[float, float]]] = {"tokens": (1, math.inf)}
    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {"full": ("drop", "refuse")}


@dataclass(frozen=True)
class Budget(CheckedOptions):
    """The most that one piece of media may cost; each limit is checked before the cost is paid.

    The defaults suit a person's own files; a server passes tighter ones. text_bytes: of all text of one prompt or turn.
    """

    text_bytes: int = 1 << 20
    image_bytes: int = 64 << 20
    audio_bytes: int = 128 << 20  # 300 s of 48 kHz stereo float32 are 115 MB
    video_bytes: int = 512 << 20
    image_pixels: int = 64_000_000  # decoded, before any resize
    image_side: int = 16_384  # pixels
    frame_pixels: int = 4096 * 2304  # one video frame, decoded
    frames: int = 40_000  # decoded video frames: 600 s at 60 Hz, and some
    audio_s: float = 300.0  # the feature extractor's window
    video_s: float = 600.0
    min_rate: int = 8_000  # Hz
    max_rate: int = 192_000  # Hz
    channels: int = 8
    image_cpu_s: float = 10.0  # of the decoder process; also of one frame that is pushed
    audio_cpu_s: float = 20.0
    video_cpu_s: float = 60.0
    decoder_bytes: int = 1 << 30  # of memory of the decoder process, in which 0.2 GiB are its own

    BOUNDS: ClassVar[Mapping[str, tuple[float, float]]] = {
        "audio_s": (0, 3600),
        "video_s": (0, 36_000),
        "image_cpu_s": (0, 86_400),
        "audio_cpu_s": (0, 86_400),
        "video_cpu_s": (0, 86_400),
        "decoder_bytes": (1 << 29, 1 << 40),
    }

    def bytes_for(self, kind: MediaKind) -> int:
        """The largest file of this kind, in bytes."""
        return {"image": self.image_bytes, "audio": self.audio_bytes, "video": self.video_bytes}[kind]


# ---------------------------------------------------------------- events


@dataclass(frozen=True)
class TokenChance:
    """One token that was written: its bytes, the logarithm of how likely it was, and the likeliest tokens (bytes,
    logarithm), if asked for. Of the model's own distribution, before penalties and temperature."""

    text: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...] = ()


@dataclass(frozen=True)
class TextDelta:
    """New text, always valid Unicode. t: seconds since the request was complete; tokens: those that made it, if asked
    for (``logprobs``)."""

    text: str
    t: float
    tokens: tuple[TokenChance, ...] = ()


@dataclass(frozen=True)
class AudioChunk:
    """New sound: samples (W,) float32 in [-1, 1] at ``rate`` Hz, starting at ``start_sample`` of the answer."""

    samples: np.ndarray
    start_sample: int
    rate: int
    t: float


@dataclass(frozen=True)
class Called:
    """The model calls a tool: the call is complete, and no part of the text or the sound."""

    call: ToolCall
    t: float


@dataclass(frozen=True)
class Usage:
    """Counts of one answer. prompt_tokens: of the whole conversation before the reply; prefilled_tokens: those read
    after the request was complete (the others were in the cache); audio_tokens: those that sound fills; text_tokens: of
    the reply, without the stop token; codes and samples: of the speech; underruns: times that a listener who plays in
    real time had no sound left; text_cut, speech_cut: it ended by a limit (max_tokens, the Talker's max_tokens), and
    more was to come."""

    prompt_tokens: int
    prefilled_tokens: int
    text_tokens: int
    codes: int = 0
    samples: int = 0
    underruns: int = 0
    text_cut: bool = False
    speech_cut: bool = False
    audio_tokens: int = 0


@dataclass(frozen=True)
class Timings:
    """Seconds of one answer. total_s, first_text_s and first_audio_s count from the complete request (None: there was
    no text, or no sound); audio_s: length of the sound; rtf: total_s / audio_s; queue_s: waited for a slot; read_s,
    think_s, talk_s, decode_s: in each stage, passes shared with other answers counted whole."""

    total_s: float
    audio_s: float = 0.0
    first_text_s: float | None = None
    first_audio_s: float | None = None
    rtf: float | None = None
    queue_s: float = 0.0
    read_s: float = 0.0
    think_s: float = 0.0
    talk_s: float = 0.0
    decode_s: float = 0.0


@dataclass(frozen=True)
class Finished:
    """The last event. text: the whole answer; reason: "stop", or "length" when text or speech was cut (``usage``);
    calls: the tools that it calls."""

    text: str
    reason: Literal["stop", "length"]
    usage: Usage
    timings: Timings
    t: float
    calls: tuple[ToolCall, ...] = ()


class Transcript(str):
    """A text that was written down; ``finished`` tells how it ended. reason: "length" when more was said."""

    finished: Finished

    @property
    def reason(self) -> Literal["stop", "length"]:
        return self.finished.reason


@dataclass(frozen=True)
class Progress:
    """The work before an answer begins, where that takes a while.

    "queued": requests before it, of all that wait. "dropped": so many of the oldest turns of the conversation, media
    included, made room for it, of all. "forgotten": so many seconds of the beginning of a live turn that was longer
    than can be heard at once, of all. "reading": tokens of its prompt that are read, of all.
    """

    stage: Literal["queued", "dropped", "forgotten", "reading"]
    done: int
    total: int
    t: float


Event = TextDelta | AudioChunk | Called | Progress | Finished
Latency = Literal["low", "balanced", "quality"]
Precision = Literal["float32", "tf32"]
Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Decoding(CheckedOptions):
    """The meaning of the one dial (``latency``): how codes become sound, block by block.

    A block is ``block_size`` mel frames (24 mel = 240 ms). The first DiT window emits ``first`` blocks when
    ``first_ahead`` more have come. Each later one goes on from the one before it, and emits as many blocks as were
    emitted so far, at most ``now``, when ``ahead`` more have come: 1, 1, 2, 4, 4, ...
    """

    first: int = 1
    first_ahead: int = 1
    now: int = 1
    ahead: int = 1
    solver: Literal["euler", "midpoint", "rk4"] = "rk4"
    points: int = 10  # time points of the schedule; points - 1 intervals
    guidance: float = 0.5
    sway: float = -1.0
    noise_scale: float = 1.0
    precision: Precision = "float32"  # of products on a GPU: "tf32" changes the mel by 2e-4, a tenth of the solver's
    early: bool = False  # the vocoder reads the unfinished look-ahead mel instead of waiting for its right context

    # What one request may cost is bounded here: at most 64 intervals of 4 evaluations, and windows of 15 s of sound.
    # Sway beyond 2 / (pi - 2) would have time run backwards.
    BOUNDS: ClassVar[Mapping[str, tuple[float, float]]] = {
        "first": (1, 64),
        "first_ahead": (0, 64),
        "now": (1, 64),
        "ahead": (0, 64),
        "points": (2, 65),
        "guidance": (0, 100),
        "sway": (-1, 1.75),
        "noise_scale": (0, 10),
    }
    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "solver": ("euler", "midpoint", "rk4"),
        "precision": ("float32", "tf32"),
    }


class AnswerOptions(TypedDict, total=False):
    """The options of an answer, by keyword to ``chat``, ``speak`` and ``session``; what is left out is the default.

    voice: a name of ``Omni.voices`` (default: the first); speech: answer aloud too (default True);
    sampling, talker_sampling: how text and codes are drawn (default: as the model's generation_config.json says);
    max_tokens: of text, in place of that of ``sampling``; seed: makes text, codes and sound reproducible;
    latency: the dial, or a Decoding (default: that of ``load``); tenant: only answers of the same tenant share cached
    pages (default ""); budget: what media may cost (default: that of ``load``); tools: functions that the model may
    call, or a ToolUse that says more (default: none); schema: a JSON Schema that the text follows, as JSON on one line
    (needs the extra ``grammar``; tools may still be called); stop: up to 16 texts that end the answer where one of them
    would begin; logprobs: how many of the likeliest tokens are told beside
    each that is written, 0 to 20 (default: nothing of the kind).
    """

    voice: str | None
    speech: bool
    sampling: Sampling | None
    talker_sampling: Sampling | None
    max_tokens: int | None
    seed: int | None
    latency: Latency | Decoding | None
    tenant: str
    budget: Budget | None
    tools: Sequence[Tool] | ToolUse | None
    schema: Mapping[str, Any] | None
    stop: Sequence[str] | None
    logprobs: int | None
