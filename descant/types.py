"""The vocabulary that every room speaks: messages in, a prompt in the middle, events out.

Axis legend used everywhere in descant:
B batch, T time (tokens or frames), S source (keys), H heads, D dim, C codes, M mel bins, W samples, N patches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

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
    """A video: a path, the bytes of a file, or a decoded Clip. ``use_audio`` interleaves its sound (TMRoPE)."""

    source: Source | Clip
    use_audio: bool = False


Part = Text | Image | Audio | Video
Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: tuple[Part, ...]


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


# ---------------------------------------------------------------- what the model reads


@dataclass(frozen=True)
class PixelGrid:
    """Patches of one image or video in the official row order (merge blocks contiguous).

    patches (N, channels*temporal*patch*patch) float32, normalised; grid = (t, h, w) in patches, N = t*h*w.
    """

    patches: Tensor
    grid: tuple[int, int, int]


@dataclass(frozen=True)
class Prompt:
    """Everything the Thinker reads, derived once from the segment list; all tensors on the CPU.

    ids (T,) int64 with one placeholder id per media token; positions (3, T) int64 TMRoPE ids;
    next_position: the id of the first generated token (max + 1);
    audio: one (M, F) float32 log-mel per clip, valid frames only, in order of appearance (a video's sound included).
    """

    ids: Tensor
    positions: Tensor
    next_position: int
    audio: tuple[Tensor, ...] = ()
    images: tuple[PixelGrid, ...] = ()
    videos: tuple[PixelGrid, ...] = ()


# ---------------------------------------------------------------- how it answers


@dataclass(frozen=True)
class Sampling:
    """How one token stream is drawn. temperature 0 is greedy. The order of processors is the reference's:
    repetition penalty, suppression, temperature, top-k, top-p."""

    temperature: float = 0.0
    top_k: int = 0  # 0: off
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    max_tokens: int = 1024


@dataclass(frozen=True)
class Voice:
    """A speaker. bos_token: a row of the Thinker's embedding table; vector (D,) float32; ref_mel (T, M) float32."""

    name: str
    bos_token: int
    vector: Tensor
    ref_mel: Tensor


@dataclass(frozen=True)
class Memory:
    """How long a live session may grow. tokens: of its context (None: as many as the model was made for).

    full: what happens then: the oldest turns are dropped, media included, and an event says so; or the next answer is
    refused.
    """

    tokens: int | None = None
    full: Literal["drop", "refuse"] = "drop"


# ---------------------------------------------------------------- events


@dataclass(frozen=True)
class TextDelta:
    """New text, always valid Unicode. t: seconds since the request was complete."""

    text: str
    t: float


@dataclass(frozen=True)
class AudioChunk:
    """New sound: samples (W,) float32 in [-1, 1] at ``rate`` Hz, starting at ``start_sample`` of the answer."""

    samples: np.ndarray
    start_sample: int
    rate: int
    t: float


@dataclass(frozen=True)
class Finished:
    """The last event. text: the whole answer; reason: "stop" or "length"; usage and timings: plain numbers."""

    text: str
    reason: Literal["stop", "length"]
    usage: Mapping[str, int]
    timings: Mapping[str, float]
    t: float


@dataclass(frozen=True)
class Progress:
    """What an answer does before it begins, where that takes a while.

    "queued": requests before it, of all that wait. "dropped": so many of the oldest turns of the conversation, media
    included, made room for it, of all. "reading": tokens of its prompt that are read, of all.
    """

    stage: Literal["queued", "dropped", "reading"]
    done: int
    total: int
    t: float


Event = TextDelta | AudioChunk | Progress | Finished
Latency = Literal["low", "balanced", "quality"]


@dataclass(frozen=True)
class Decoding:
    """What the one dial (``latency``) stands for: how codes become sound, block by block.

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
    early: bool = False  # the vocoder reads the unfinished look-ahead mel instead of waiting for its right context
