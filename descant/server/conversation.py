"""The messages of a request -> messages of ours. Media are data URLs or base64: nothing is fetched, no path is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from descant.errors import OptionError, RequestError
from descant.inputs.messages import read_messages
from descant.server.attachments import with_attachments
from descant.server.errors import wrong
from descant.server.media import check_counts, media_of
from descant.server.schema import MAX_PARTS
from descant.server.tools import read_call
from descant.tools import ToolCall, ToolResult
from descant.types import Audio, Image, MediaKind, Message, Part, Text, Video

ADDRESS_PARTS: dict[str, MediaKind] = {"image_url": "image", "audio_url": "audio", "video_url": "video"}
SpokenBefore = Callable[[str], str | None]  # the id of an earlier spoken answer -> its text


def messages_of(given: list[dict[str, Any]], spoken: SpokenBefore, *, video_sound: bool) -> list[Message]:
    """All messages of a request. spoken: what an assistant's turn that is only an audio id said.

    Raises RequestError and OptionError with the place in the message.
    """
    rows = with_attachments(given, "messages")
    check_counts(rows)
    messages: list[Message] = []
    for place, row in enumerate(rows):
        where = f"messages[{place}]"
        if row.get("role") == "tool":
            add_result(messages, result_of(row.get("tool_call_id"), row.get("content"), where))
        else:
            messages.append(message_of(row, where, spoken, video_sound=video_sound))
    return messages


def add_result(messages: list[Message], result: ToolResult) -> None:
    """Append what a call gave. Results of one turn are one turn, in the order of the calls, which is how the model
    tells them apart."""
    before = messages[-1] if messages else None
    if before is None or not before.content or not isinstance(before.content[0], ToolResult):
        messages.append(Message("user", (result,)))
        return
    asked = messages[-2].content if len(messages) > 1 else ()
    order = {part.id: place for place, part in enumerate(asked) if isinstance(part, ToolCall)}
    results = [part for part in (*before.content, result) if isinstance(part, ToolResult)]
    results.sort(key=lambda part: order.get(part.id, len(order)))
    messages[-1] = Message("user", tuple(results))


def add_call(messages: list[Message], call: ToolCall) -> None:
    """Append a call to the assistant's turn, which it may begin."""
    before = messages[-1] if messages else None
    if before is not None and before.role == "assistant":
        messages[-1] = Message("assistant", (*before.content, call))
    else:
        messages.append(Message("assistant", (call,)))


def result_of(call: object, content: object, where: str) -> ToolResult:
    """The result of a call: a string, or parts of text. Raises RequestError."""
    if isinstance(content, list):
        texts = [part_of(part, f"{where}[{n}]", video_sound=False) for n, part in enumerate(content)]
        if not all(isinstance(part, Text) for part in texts):
            raise RequestError(400, "unsupported_part", f"{where}: the result of a call is text here", param=where)
        content = "".join(part.text for part in texts if isinstance(part, Text))
    if not isinstance(content, str) or not isinstance(call, str):
        raise wrong(f"{where}: a result is a string, with the id of its call", where)
    return ToolResult(content, call)


def message_of(row: Mapping[str, Any], where: str, spoken: SpokenBefore, *, video_sound: bool) -> Message:
    """One message that is no result of a call."""
    content = row.get("content")
    audio = row.get("audio")
    calls = row.get("tool_calls")
    if calls is not None and (row.get("role") != "assistant" or not isinstance(calls, list)):
        raise wrong(f"{where}.tool_calls is a list of the assistant's calls", where)
    if calls:
        rest = {key: value for key, value in row.items() if key != "tool_calls"}
        rest["content"] = content or (None if audio else "")
        said = message_of(rest, where, spoken, video_sound=video_sound).content
        made = [read_call(call, f"{where}.tool_calls[{n}]") for n, call in enumerate(calls)]
        return Message("assistant", (*(part for part in said if part != Text("")), *made))
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
        raise wrong(f"{where}.content is no string and no list of parts", where)
    return read_messages([{"role": row.get("role"), "content": content}])[0]


def part_of(part: object, where: str, *, video_sound: bool) -> Part:
    """One content part. Raises RequestError."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(part, Mapping) or not isinstance(kind, str):
        raise wrong(f"{where} is no object with a type", where)
    if kind in ("text", "input_text", "output_text", "refusal"):
        text = part.get("refusal" if kind == "refusal" else "text")
        if not isinstance(text, str):
            raise wrong(f"{where}.text is no string", where)
        return Text(text)
    if kind == "input_audio":
        body = part.get("input_audio")
        data = body.get("data") if isinstance(body, Mapping) else None
        return Audio(media_of(data, where, "audio"))
    if kind in ADDRESS_PARTS:
        body = part.get(kind)
        url = body.get("url") if isinstance(body, Mapping) else body
        medium = ADDRESS_PARTS[kind]
        data = media_of(url, where, medium)
        match medium:
            case "image":
                return Image(data)
            case "audio":
                return Audio(data)
            case _:
                return Video(data, use_audio=None if video_sound else False)
    raise RequestError(400, "unsupported_part", f"{where}: parts of this type are not read here", param=where)


def check_supported(wishes: Mapping[str, object]) -> None:
    """Refuse what is asked for and not done here; a wish that is empty or zero is none. Raises OptionError."""
    for name, value in wishes.items():
        if value:
            raise OptionError(f"{name} is not supported by this server; leave it out")
