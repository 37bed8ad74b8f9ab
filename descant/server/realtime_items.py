"""The items of a realtime conversation: as clients read them, and as messages that the model reads.

{"type": "message", "role", "content": [input_text | input_audio | input_image | video_url | output_text | ...]}
{"type": "function_call", "call_id", "name", "arguments"}
{"type": "function_call_output", "call_id", "output"}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from descant.errors import RequestError
from descant.inputs.runs import PositionRun
from descant.server.conversation import part_of, result_of
from descant.server.errors import wrong
from descant.server.media import media_of
from descant.server.realtime_session import new_id
from descant.server.schema import MAX_ID_CHARACTERS, MAX_PARTS
from descant.server.tools import read_call
from descant.server.voice_formats import SoundCoding
from descant.types import Audio, Image, Message, Part, Role, Text

MAX_ITEMS = 512
ROOT = "root"  # the place before all items
ITEM_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}
MEDIA_FIELDS = frozenset({"audio", "image_url", "video_url"})  # of a part: what is not kept, for the model has read it


@dataclass(eq=False)
class TalkItem:
    """record: as clients read it; key: of the live session's message (None: it is part of the item before it, or the
    model does not hold it); speed: at which it is heard."""

    record: dict[str, Any]
    key: int | None = None
    speed: float = 1.0

    @property
    def id(self) -> str:
        return str(self.record["id"])


@dataclass
class Items:
    """All items, in order."""

    all: list[TalkItem] = field(default_factory=list)

    def get(self, name: object, param: str = "item_id") -> TalkItem:
        """The item of an id. Raises RequestError."""
        for item in self.all:
            if item.id == name:
                return item
        raise RequestError(400, "item_not_found", "the conversation has no item of this id", param=param)

    def before(self, item: TalkItem) -> str | None:
        """The id of the item before one; None: it is the first, or is gone."""
        place = self.all.index(item) if item in self.all else 0
        return self.all[place - 1].id if place else None

    def place_after(self, previous: object) -> int:
        """The place behind an item (None: the end; "root": the beginning). Raises RequestError."""
        if previous is None:
            return len(self.all)
        return 0 if previous == ROOT else self.all.index(self.get(previous, "previous_item_id")) + 1

    def check_new(self, name: str) -> None:
        """Refuse an id that is there already."""
        if any(item.id == name for item in self.all):
            raise RequestError(400, "item_exists", "the conversation has an item of this id already", param="item.id")

    def key_before(self, place: int) -> int | None:
        """The key of the last message before a place, as ``LiveSession.insert`` wants it."""
        if place == len(self.all):
            return None
        return next((item.key for item in reversed(self.all[:place]) if item.key is not None), 0)

    def put(self, item: TalkItem, place: int | None = None) -> str | None:
        """Put an item at a place (None: the end); returns the id of the one before it."""
        place = len(self.all) if place is None else min(place, len(self.all))
        self.all.insert(place, item)
        return self.all[place - 1].id if place else None


def item_record(given: object) -> dict[str, Any]:
    """A client's item, with an id. Raises RequestError."""
    if not isinstance(given, Mapping) or not isinstance(given.get("type"), str):
        raise wrong("item is an object with a type", "item")
    name = given.get("id") or new_id("item")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_ID_CHARACTERS or not name.isprintable():
        message = f"an id is a string of 1 to {MAX_ID_CHARACTERS} printable characters"
        raise wrong(message, "item.id")
    return {"object": "realtime.item", **given, "id": name, "status": "completed"}


def message_of_item(record: Mapping[str, Any], coding: SoundCoding, where: str = "item") -> Message:
    """An item as a message that the model reads. coding: of its sound. Raises RequestError."""
    match record.get("type"):
        case "message":
            pass
        case "function_call":
            return Message("assistant", (read_call({**record, "id": ""}, where),))
        case "function_call_output":
            return Message("user", (result_of(record.get("call_id"), record.get("output"), where),))
        case _:
            message = "items are of type message, function_call or function_call_output here"
            raise RequestError(400, "unsupported_item", message, param=f"{where}.type")
    role = record.get("role")
    if role not in ITEM_ROLES:
        raise wrong(f"role is one of {', '.join(ITEM_ROLES)}", f"{where}.role")
    content = record.get("content")
    if isinstance(content, str):
        content = [{"type": "input_text", "text": content}]
    if not isinstance(content, list) or not 0 < len(content) <= MAX_PARTS:
        raise wrong(f"content is a list of 1 to {MAX_PARTS} parts", f"{where}.content")
    parts = [item_part(part, coding, f"{where}.content[{n}]") for n, part in enumerate(content)]
    return Message(ITEM_ROLES[role], tuple(parts))


def item_part(part: object, coding: SoundCoding, where: str) -> Part:
    """A content part. Raises RequestError."""
    if not isinstance(part, Mapping):
        raise wrong(f"{where} is no object with a type", where)
    match part.get("type"):
        case "input_text" | "output_text" | "text":
            return Text(string_of(part.get("text"), f"{where}.text"))
        case "output_audio" | "audio":
            return Text(string_of(part.get("transcript"), f"{where}.transcript"))
        case "input_audio":
            return Audio(coding.decoded(part.get("audio")), coding.rate)
        case "input_image" | "image_url":
            url = part.get("image_url")
            return Image(media_of(url.get("url") if isinstance(url, Mapping) else url, where, "image"))
        case "video_url":
            return part_of(part, where, video_sound=True)
    raise RequestError(400, "unsupported_part", f"{where}: parts of this type are not read here", param=where)


def layout_record(name: str, runs: Sequence[PositionRun], rate: int) -> dict[str, Any]:
    """Where the tokens of an item stand, counted from its first position. rate: positions of one second."""
    told = [
        {"type": run.kind, "count": run.count, "start": run.start}
        | ({} if run.columns is None else {"columns": run.columns})
        for run in runs
    ]
    return {"item_id": name, "positions_per_second": rate, "runs": told}


def string_of(value: object, where: str) -> str:
    """A text. Raises RequestError."""
    if not isinstance(value, str):
        raise wrong(f"{where} is no string", where)
    return value


def without_media(record: Mapping[str, Any]) -> dict[str, Any]:
    """An item without its sound and pictures: what is kept of it."""
    content = record.get("content")
    if not isinstance(content, list):
        return dict(record)
    parts = [
        {k: v for k, v in part.items() if k not in MEDIA_FIELDS} if isinstance(part, dict) else part for part in content
    ]
    return {**record, "content": parts}
