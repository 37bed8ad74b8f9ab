"""descant: one model that hears, sees, reads, and answers in text and in a voice at the same time.

``load`` gives an ``Omni``; its ``chat`` gives an ``Answer``, which is events. Importing descant is cheap: torch comes
with the first ``load``. Every name that a public signature, docstring or the README mentions is here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from descant.errors import (
    BusyError,
    ConfigError,
    DescantError,
    MediaError,
    OptionError,
    SessionError,
    WeightsError,
)
from descant.tools import Tool, ToolCall, ToolResult, ToolUse
from descant.types import (
    AnswerOptions,
    Audio,
    AudioChunk,
    Budget,
    Called,
    ChatInput,
    Clip,
    Decoding,
    Dtype,
    Event,
    Finished,
    Image,
    Latency,
    Memory,
    Message,
    Part,
    Progress,
    Sampling,
    Text,
    TextDelta,
    Timings,
    TokenChance,
    Usage,
    Video,
    assistant,
    system,
    user,
)

if TYPE_CHECKING:
    from descant.omni import Answer, Limits, LiveSession, Omni, load

__all__ = [
    "Answer",
    "AnswerOptions",
    "Audio",
    "AudioChunk",
    "Budget",
    "BusyError",
    "Called",
    "ChatInput",
    "Clip",
    "ConfigError",
    "Decoding",
    "DescantError",
    "Dtype",
    "Event",
    "Finished",
    "Image",
    "Latency",
    "Limits",
    "LiveSession",
    "MediaError",
    "Memory",
    "Message",
    "Omni",
    "OptionError",
    "Part",
    "Progress",
    "Sampling",
    "SessionError",
    "Text",
    "TextDelta",
    "Timings",
    "TokenChance",
    "Tool",
    "ToolCall",
    "ToolResult",
    "ToolUse",
    "Usage",
    "Video",
    "WeightsError",
    "assistant",
    "load",
    "system",
    "user",
]
_NEED_TORCH = ("Answer", "Limits", "LiveSession", "Omni", "load")


def __getattr__(name: str) -> Any:
    if name not in _NEED_TORCH:
        raise AttributeError(f"module 'descant' has no attribute {name!r}; it has {', '.join(__all__)}")
    from descant import omni  # here, because it imports torch

    return vars(omni)[name]


def __dir__() -> list[str]:
    return __all__
