"""The chat format as pieces: text runs, named special tokens and media, never one big string.

    <|im_start|>ROLE newline CONTENT <|im_end|> newline      per turn
    <|im_start|>assistant newline                            where the model is to answer

Text between two special tokens is ONE run, because the tokenizer may join a newline of ours with one of the user's.
Delimiters and placeholders of media are the layout's business. Source: the chat template of Qwen2.5-Omni.

Tools are written as the chat template of Qwen2.5 does, because that of Qwen2.5-Omni leaves them out: described at the
end of the system turn, called in the assistant's turn between two special tokens, answered in a turn of the user.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from descant.config import InputsConfig
from descant.inputs.tokenizer import IM_END, IM_START, TOOL_CALL, TOOL_CALL_END
from descant.tools import Tool, ToolCall, ToolResult, json_text
from descant.types import Audio, Image, Message, Part, Text, Video


@dataclass(frozen=True)
class Special:
    """A special token, by its string."""

    name: str


Medium = Image | Audio | Video
Kind = TypeVar("Kind")
Piece = str | Special | Medium  # str: plain text, tokenised as one run


def render(
    messages: Sequence[Message], inputs: InputsConfig, *, speech: bool, generate: bool, tools: Sequence[Tool] = ()
) -> list[Piece]:
    """The pieces of a conversation, media in order of appearance.

    When no system turn leads, the default one is put there (the one for speech when the answer is to be spoken).
    generate: end by opening the assistant's turn. tools: described in the system turn.
    """
    first, rest = ([*messages[:1]], messages[1:]) if messages[0].role == "system" else ([], messages)
    text = default_system(inputs, speech=speech)
    pieces: list[Piece] = []
    if first:
        pieces = system_turn(written(first[0].content), tools)
    elif text is not None or tools:
        pieces = system_turn([text or ""], tools)
    for message in rest:
        pieces += [*opening(message.role), *written(message.content), *CLOSING]
    if generate:
        pieces += opening("assistant")
    return merged(pieces)


def opening(role: str) -> list[str | Special]:
    """The beginning of a turn."""
    return [Special(IM_START), role + "\n"]


CLOSING: tuple[str | Special, ...] = (Special(IM_END), "\n")


def system_turn(content: Sequence[Piece], tools: Sequence[Tool]) -> list[Piece]:
    """The turn that leads a conversation: what it says, then the tools that may be called."""
    return [*opening("system"), *content, *described(tools, behind=any(content)), *CLOSING]


def described(tools: Sequence[Tool], *, behind: bool) -> list[Piece]:
    """The tools, and how they are called. behind: something stands before."""
    if not tools:
        return []
    listed = "".join(f"\n{tool.as_json()}" for tool in tools)
    return [
        ("\n\n" if behind else "")
        + "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        + "You are provided with function signatures within <tools></tools> XML tags:\n"
        + f"<tools>{listed}\n</tools>\n\n"
        + "For each function call, return a json object with function name and arguments within ",
        Special(TOOL_CALL),
        Special(TOOL_CALL_END),
        " XML tags:\n",
        Special(TOOL_CALL),
        '\n{"name": <function-name>, "arguments": <args-json-object>}\n',
        Special(TOOL_CALL_END),
    ]


def written(parts: Sequence[Part], *, behind: bool = False) -> list[Piece]:
    """The parts of a message as pieces. behind: others of the same turn stand before."""
    pieces: list[Piece] = []
    for place, part in enumerate(parts):
        line = ["\n"] if behind or place else []
        match part:
            case Text():
                pieces.append(part.text)
            case ToolCall():
                pieces += [*line, Special(TOOL_CALL), f"\n{call_text(part)}\n", Special(TOOL_CALL_END)]
            case ToolResult():
                pieces += [*line, f"<tool_response>\n{part.content}\n</tool_response>"]
            case _:
                pieces.append(part)
    return pieces


def call_text(call: ToolCall) -> str:
    """A call as the model writes it. Arguments that are no JSON stay as they are."""
    try:
        arguments = json_text(json.loads(call.arguments))
    except (ValueError, RecursionError):
        arguments = call.arguments
    return f'{{"name": {json_text(call.name)}, "arguments": {arguments}}}'


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
