"""descant: one model that hears, sees, reads, and answers in text and in a voice at the same time.

``load`` gives an ``Omni``; its ``chat`` gives events. Importing descant is cheap: torch comes with the first ``load``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from descant.errors import DescantError, MediaError, OptionError
from descant.types import (
    Audio,
    AudioChunk,
    Decoding,
    Finished,
    Image,
    Message,
    Progress,
    Sampling,
    Text,
    TextDelta,
    Video,
    assistant,
    system,
    user,
)

if TYPE_CHECKING:
    from descant.omni import Omni, load

__all__ = [
    "Audio",
    "AudioChunk",
    "Decoding",
    "DescantError",
    "Finished",
    "Image",
    "MediaError",
    "Message",
    "Omni",
    "OptionError",
    "Progress",
    "Sampling",
    "Text",
    "TextDelta",
    "Video",
    "assistant",
    "load",
    "system",
    "user",
]


def __getattr__(name: str) -> Any:
    if name not in ("Omni", "load"):
        raise AttributeError(f"module 'descant' has no attribute {name!r}; it has {', '.join(__all__)}")
    from descant import omni  # here, because it imports torch

    return {"Omni": omni.Omni, "load": omni.load}[name]


def __dir__() -> list[str]:
    return __all__
