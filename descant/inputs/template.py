"""The chat format as pieces: text runs, named special tokens and media, never one big string.

    <|im_start|>ROLE newline CONTENT <|im_end|> newline      per turn
    <|im_start|>assistant newline                            where the model is to answer

Text between two special tokens is ONE run, because the tokenizer may join a newline of ours with one of the user's.
Delimiters and placeholders of media are the layout's business. Source: the chat template of Qwen2.5-Omni.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from descant.config import InputsConfig
from descant.inputs.tokenizer import IM_END, IM_START
from descant.types import Audio, Image, Message, Part, Text, Video, system


@dataclass(frozen=True)
class Special:
    """A special token, by its string."""

    name: str


Medium = Image | Audio | Video
Kind = TypeVar("Kind")
Piece = str | Special | Medium  # str: plain text, tokenised as one run


def render(messages: Sequence[Message], inputs: InputsConfig, *, speech: bool, generate: bool) -> list[Piece]:
    """The pieces of a conversation, media in order of appearance.

    When no system turn leads, the default one is put there (the one for speech when the answer is to be spoken).
    generate: end by opening the assistant's turn.
    """
    pieces: list[Piece] = []
    text = default_system(inputs, speech=speech)
    if text is not None and messages[0].role != "system":
        messages = [system(text), *messages]
    for message in messages:
        pieces += [*opening(message.role), *(piece_of(part) for part in message.content), *CLOSING]
    if generate:
        pieces += opening("assistant")
    return merged(pieces)


def opening(role: str) -> list[str | Special]:
    """The beginning of a turn."""
    return [Special(IM_START), role + "\n"]


CLOSING: tuple[str | Special, ...] = (Special(IM_END), "\n")


def piece_of(part: Part) -> str | Medium:
    """A part of a message as a piece: its text, or the medium itself."""
    return part.text if isinstance(part, Text) else part


def default_system(inputs: InputsConfig, *, speech: bool) -> str | None:
    """The text of the system turn that leads where the user gives none; None: there is none."""
    return inputs.speech_system if speech else inputs.default_system


def merged(pieces: Sequence[Kind]) -> list[Kind]:
    """Neighbouring text runs as one; empty ones dropped. Whatever is no text stays as it is."""
    joined: list[Any] = []
    for piece in pieces:
        if isinstance(piece, str) and joined and isinstance(joined[-1], str):
            joined[-1] += piece
        elif piece != "":
            joined.append(piece)
    return joined
