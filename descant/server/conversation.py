"""The messages of a request -> messages of ours. Media are data URLs or base64: nothing is fetched, no path is read."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any

from descant.errors import OptionError, RequestError
from descant.inputs.messages import read_messages
from descant.server.schema import MAX_PARTS
from descant.types import Audio, Image, Message, Part, Text, Video

MEDIA_PARTS = {"image_url": "image", "audio_url": "audio", "video_url": "video"}
JPEG_BEGINS = "/9j/"  # the first three bytes of every JPEG, in base64
SpokenBefore = Callable[[str], str | None]  # the id of an earlier spoken answer -> its text


def messages_of(given: list[dict[str, Any]], spoken: SpokenBefore, *, video_sound: bool) -> list[Message]:
    """All messages of a request. spoken: what an assistant's turn that is only an audio id said.

    Raises RequestError and OptionError with the place in the message.
    """
    return [message_of(row, f"messages[{place}]", spoken, video_sound=video_sound) for place, row in enumerate(given)]


def message_of(row: Mapping[str, Any], where: str, spoken: SpokenBefore, *, video_sound: bool) -> Message:
    content = row.get("content")
    audio = row.get("audio")
    if row.get("role") == "assistant" and content is None and isinstance(audio, Mapping):
        text = spoken(str(audio.get("id")))
        if text is None:
            raise RequestError(
                400, "audio_not_found", f"{where}: no spoken answer of this id is kept; send its text instead"
            )
        content = text
    if isinstance(content, list):
        if len(content) > MAX_PARTS:
            raise RequestError(413, "too_many_parts", f"{where} has {len(content)} parts; at most {MAX_PARTS} are read")
        parts = [part_of(part, f"{where}.content[{n}]", video_sound=video_sound) for n, part in enumerate(content)]
        role_only = read_messages([{"role": row.get("role"), "content": ""}])[0]
        return Message(role_only.role, tuple(parts))
    if not isinstance(content, str):
        raise RequestError(400, "invalid_value", f"{where}.content is no string and no list of parts", param=where)
    return read_messages([{"role": row.get("role"), "content": content}])[0]


def part_of(part: object, where: str, *, video_sound: bool) -> Part:
    """One content part. Raises RequestError."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(part, Mapping) or not isinstance(kind, str):
        raise RequestError(400, "invalid_value", f"{where} is no object with a type", param=where)
    if kind in ("text", "input_text"):
        text = part.get("text")
        if not isinstance(text, str):
            raise RequestError(400, "invalid_value", f"{where}.text is no string", param=where)
        return Text(text)
    if kind == "input_audio":
        body = part.get("input_audio")
        data = body.get("data") if isinstance(body, Mapping) else None
        return Audio(bytes_of(data, where))
    if kind in MEDIA_PARTS:
        body = part.get(kind)
        url = body.get("url") if isinstance(body, Mapping) else body
        data = bytes_of(url, where)
        match MEDIA_PARTS[kind]:
            case "image":
                return Image(data)
            case "audio":
                return Audio(data)
            case _:
                return Video(data, use_audio=None if video_sound else False)
    raise RequestError(400, "unsupported_part", f"{where}: parts of this type are not read here", param=where)


def bytes_of(given: object, where: str) -> bytes:
    """The bytes of a data URL, or of bare base64. Raises RequestError; every address is refused."""
    if not isinstance(given, str) or not given:
        raise RequestError(400, "invalid_value", f"{where} has no data", param=where)
    head, comma, body = given.partition(",")
    if comma and head.startswith("data:"):
        if not head.endswith(";base64"):
            raise RequestError(400, "invalid_base64", f"{where}: write data:TYPE;base64,DATA", param=where)
    elif "://" in given[:64] or given.startswith((".", "~", "data:", "file:")) or is_path(given):
        raise RequestError(
            403, "url_not_allowed", f"{where}: addresses are not fetched; send a data URL", "permission_error", where
        )
    else:
        body = given
    try:
        return b64decode(body, validate=True)
    except ValueError:
        raise RequestError(400, "invalid_base64", f"{where} is no base64", param=where) from None


def is_path(given: str) -> bool:
    """True for what begins like a path, and not like a JPEG in base64 (nothing is opened, whatever it is)."""
    return given.startswith("/") and not given.startswith(JPEG_BEGINS)


def check_supported(wishes: Mapping[str, object]) -> None:
    """Refuse what is asked for and not done here; a wish that is empty or zero is none. Raises OptionError."""
    for name, value in wishes.items():
        if value:
            raise OptionError(f"{name} is not supported by this server; leave it out")
