"""Conversations -> messages: a string, messages, the official model card's JSON form, or OpenAI's content parts.

    "hello"                                                        one user turn
    [{"role": "user", "content": "hello"}]                         roles system (or developer), user, assistant
    {"type": "text", "text": ...}                                  a part of a content list; also "input_text"
    {"type": "image" | "audio" | "video", KIND: path}              the model card
    {"type": "image_url" | "audio_url" | "video_url", TYPE: {"url": data URL or path}}
    {"type": "input_audio", "input_audio": {"data": base64, "format": ...}}

Everything else is an OptionError that names the place, what was given and what to write. Media are opened later.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from descant.errors import OptionError, shortened
from descant.tools import ToolCall, ToolResult
from descant.types import Audio, Clip, Image, Message, Part, Role, Text, Video, user

ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
EXPECTED = "a string, a Message, or a non-empty list of messages"
MEDIA = ("image", "audio", "video")
PART_TYPES = ("text", "input_text", *MEDIA, *(f"{kind}_url" for kind in MEDIA), "input_audio")


def read_messages(given: object) -> list[Message]:
    """Every form of a conversation as messages. Raises OptionError."""
    if isinstance(given, str):
        return [user(given)]
    if isinstance(given, Message):
        given = [given]
    if not isinstance(given, Sequence) or isinstance(given, bytes | bytearray) or not given:
        raise OptionError(
            f"a conversation is {EXPECTED}, not {_described(given)}. Try descant.user('Hello'); no messages were read"
        )
    return [_read_message(message, f"message {place}") for place, message in enumerate(given)]


def check_part(part: object, where: str = "the message") -> Part:
    """A part of a message whose fields have the right types. Raises OptionError."""
    match part:
        case Text():
            text: object = part.text
            fault = None if isinstance(text, str) else f"Text of {_described(text)}; write Text('...')"
        case Image():
            fault = _source_fault(part.source, np.ndarray, "Image('cat.png') or an array (H, W, 3) of uint8")
        case Audio():
            fault = _source_fault(part.source, np.ndarray, "Audio('talk.wav') or Audio(samples, rate=16000)")
        case Video():
            fault = _source_fault(part.source, Clip, "Video('film.mp4') or Video(Clip(frames, fps))")
            use_audio: object = part.use_audio
            if fault is None and not isinstance(use_audio, bool | None):
                fault = f"use_audio={shortened(use_audio)}; write True, False or None (if it has a sound)"
        case ToolCall() | ToolResult():
            texts = vars(part)
            wrong = [name for name, value in texts.items() if not isinstance(value, str)]
            fault = f"the {wrong[0]} of a {type(part).__name__} is {_described(texts[wrong[0]])}" if wrong else None
        case _:
            raise OptionError(
                f"{where}: a {type(part).__name__} is no part of a message; expected Text, Image, Audio, Video, "
                "ToolCall or ToolResult"
            )
    if fault is not None:
        raise OptionError(f"{where}: {fault}")
    return part


def _source_fault(source: object, decoded: type, write: str) -> str | None:
    if isinstance(source, str | Path | bytes | bytearray | memoryview | decoded):
        return None
    return f"the source is {_described(source)}; write {write}, or give the bytes of a file"


def _read_message(given: object, where: str) -> Message:
    if isinstance(given, Message):
        if not isinstance(given.role, str) or given.role not in ROLES.values():
            raise OptionError(f"{where}: unknown role {shortened(given.role)}; expected one of {', '.join(ROLES)}")
        content: object = given.content
        if not isinstance(content, list | tuple):
            raise OptionError(f"{where}: the content is {_described(content)}; write descant.user('...')")
        parts = tuple(check_part(part, where) for part in content)
        for kind, role in ((ToolCall, "assistant"), (ToolResult, "user")):
            if given.role != role and any(isinstance(part, kind) for part in parts):
                raise OptionError(f"{where}: a {kind.__name__} stands in a turn of the {role}, not of the {given.role}")
        return Message(given.role, parts)
    row = _fields(given, where, required=("role", "content"))
    word = row["role"]
    content = row["content"]
    if not isinstance(word, str) or word not in ROLES:
        raise OptionError(f"{where}: unknown role {shortened(word)}; expected one of {', '.join(ROLES)}")
    if isinstance(content, str):
        return Message(ROLES[word], (Text(content),))
    if not isinstance(content, list | tuple):
        raise OptionError(f"{where}: 'content' is {_described(content)}; expected a string or a list of parts")
    return Message(ROLES[word], tuple(_read_part(part, f"{where}, part {n}") for n, part in enumerate(content)))


def _read_part(part: object, where: str) -> Part:
    """One part in JSON form, or a part as it is."""
    if isinstance(part, Part):
        return check_part(part, where)
    kind = part.get("type") if isinstance(part, Mapping) else part
    if not isinstance(part, Mapping) or not isinstance(kind, str) or kind not in PART_TYPES:
        given = shortened(kind) if isinstance(part, Mapping) else _described(part)
        raise OptionError(f"{where}: expected an object with 'type' {', '.join(PART_TYPES)}, not {given}")
    key = "text" if kind == "input_text" else kind
    extra = {"video": ("use_audio_in_video",), "video_url": ("use_audio_in_video",)}.get(kind, ())
    row = _fields(part, where, required=("type", key), optional=extra)
    use_audio = row.get("use_audio_in_video", False)
    if not isinstance(use_audio, bool | None):
        raise OptionError(f"{where}: 'use_audio_in_video' is {_described(use_audio)}; expected true, false or null")
    source = _sound_bytes(row[key], where) if kind == "input_audio" else _path(row[key], key, where)
    match kind.removesuffix("_url").removeprefix("input_"):
        case "image":
            return Image(source)
        case "audio":
            return Audio(source)
        case "video":
            return Video(source, use_audio)
        case _:
            return Text(str(source))


def _path(value: object, key: str, where: str) -> str:
    """The text of a part, or the path or URL of its media."""
    if key.endswith("_url") and isinstance(value, Mapping):
        value = _fields(value, f"{where}, {key}", required=("url",), optional=("detail",))["url"]
    if not isinstance(value, str):
        hint = "" if key == "text" else " (a path)"
        raise OptionError(f"{where}: {key!r} is {_described(value)}; expected a string{hint}")
    return value


def _sound_bytes(value: object, where: str) -> bytes:
    """The bytes of an OpenAI input_audio; its format is told by the first bytes, whatever "format" says."""
    row = _fields(value, f"{where}, input_audio", required=("data",), optional=("format",))
    if not isinstance(row["data"], str):
        raise OptionError(f"{where}: 'data' is {_described(row['data'])}; expected the base64 of a sound file")
    try:
        return b64decode(row["data"].partition(";base64,")[2] or row["data"], validate=True)
    except ValueError as error:
        raise OptionError(f"{where}: 'data' is no base64 ({error}); encode the sound file again") from None


def _fields(row: object, where: str, *, required: Sequence[str], optional: Sequence[str] = ()) -> Mapping[str, Any]:
    if not isinstance(row, Mapping):
        raise OptionError(f"{where}: expected an object, not {_described(row)}")
    missing = [key for key in required if key not in row]
    unknown = [str(key) for key in row if key not in (*required, *optional)]
    if missing or unknown:
        fault = f"lacks {missing[0]!r}" if missing else f"has the unknown key {shortened(unknown[0])}"
        raise OptionError(f"{where} {fault}; the keys are {', '.join((*required, *optional))}")
    return row


def _described(value: object) -> str:
    """The name of a value in an error: for a JSON value by its JSON name."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
