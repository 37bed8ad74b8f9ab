"""Files in a message (``file`` of chat completions, ``input_file`` of responses) -> parts of their medium."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from descant.server.errors import wrong

FILE_PARTS = ("file", "input_file")
MEDIA_TYPES_READ = ("image", "audio", "video")


def with_attachments(rows: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    """The rows of a request with the files in their contents as image_url, audio_url or video_url. name: of the field
    that the rows are. Raises RequestError."""
    return [with_attachment_parts(row, f"{name}[{place}]") for place, row in enumerate(rows)]


def with_attachment_parts(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """One row."""
    content = row.get("content")
    if not isinstance(content, list):
        return dict(row)
    return {**row, "content": [attached(part, f"{where}.content[{n}]") for n, part in enumerate(content)]}


def attached(part: object, where: str) -> object:
    """A part, or in place of a file the medium that its data URL names. Raises RequestError."""
    if not isinstance(part, Mapping) or part.get("type") not in FILE_PARTS:
        return part
    body = part.get("file") if part["type"] == "file" else part
    data = body.get("file_data") if isinstance(body, Mapping) else None
    if not isinstance(data, str):
        raise wrong(f"{where}: a file is given by its file_data, a data URL; none is stored here", where)
    kind = data[:64].removeprefix("data:").partition("/")[0].lower() if data.startswith("data:") else ""
    if kind not in MEDIA_TYPES_READ:
        raise wrong(f"{where}: files are data URLs of image/..., audio/... or video/... here", where)
    return {"type": f"{kind}_url", f"{kind}_url": data}
