"""The media of a request: base64 and data URLs -> bytes, within a server's budget and of a server's formats.

Addresses are looked up in what was fetched for this request before (fetch.py); where nothing is, they are refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from descant.errors import RequestError
from descant.inputs.limits import HEAD_BYTES, sniff
from descant.server.errors import wrong
from descant.server.strict import strict_base64
from descant.types import Budget, MediaKind

# What a stranger's file may cost; a person's own files have a wider budget (types.Budget).
SERVER_BUDGET = Budget(
    image_bytes=20 << 20,
    audio_bytes=25 << 20,
    video_bytes=64 << 20,
    image_pixels=50_000_000,
    max_rate=96_000,
    channels=2,
    video_cpu_s=20.0,
)
# Of the formats that the door knows, those that people send; names of limits.FORMATS.
SERVED_FORMATS: dict[MediaKind, frozenset[str]] = {
    "image": frozenset({"JPEG", "PNG", "WEBP", "GIF"}),
    "audio": frozenset({"wav", "flac", "mp3", "ogg", "aac", "matroska", "mov"}),
    "video": frozenset({"mov", "matroska"}),
}
FETCHED: ContextVar[dict[str, bytes]] = ContextVar("fetched")  # address -> bytes, of the request that is being served
_TYPE = re.compile(r"(?:[a-z]+/[a-z0-9.+-]+(?:;\s*[a-z]+=[\w.,\" -]+)*)?", re.IGNORECASE | re.ASCII)
JPEG_BEGINS = "/9j/"  # of a JPEG in base64; what begins else with "/" is taken for a path (nothing is opened)
_HEAD_CHARACTERS = 256  # of a data URL, before its comma
_NOT_MEDIA = ("text/html", "application/javascript", "text/javascript", "image/svg+xml")


def media_of(given: object, where: str, kind: MediaKind) -> bytes:
    """The bytes of a data URL, of bare base64, or of an address that was fetched. Raises RequestError."""
    if not isinstance(given, str) or not given:
        raise wrong(f"{where} has no data", where)
    data = FETCHED.get({}).get(given)
    if data is None:
        data = strict_base64(_base64_of(given, where), SERVER_BUDGET.bytes_for(kind), where)
    check_format(data, where, kind)
    return data


def check_format(data: bytes, where: str, kind: MediaKind) -> None:
    """Refuse a file whose first bytes are of no format that is served; one of another kind the door refuses."""
    found = sniff(data[:HEAD_BYTES])
    others = {form for of_kind, forms in SERVED_FORMATS.items() if of_kind != kind for form in forms}
    if found not in SERVED_FORMATS[kind] | others:
        told = "of no format that is known" if found is None else found
        served = ", ".join(sorted(SERVED_FORMATS[kind]))
        raise RequestError(400, "unsupported_media", f"{where} is {told}; send one of {served}", param=where)


def _base64_of(given: str, where: str) -> str:
    """The base64 in what was given. Raises RequestError."""
    if given.startswith("data:"):
        comma = given.find(",", 0, _HEAD_CHARACTERS)
        head = given[5 : max(comma, 5)]
        if comma < 0 or not head.endswith(";base64") or not _TYPE.fullmatch(head.removesuffix(";base64")):
            raise RequestError(400, "invalid_base64", f"{where}: write data:TYPE;base64,DATA", param=where)
        if head.lower().startswith(_NOT_MEDIA):
            raise RequestError(400, "unsupported_media", f"{where} is said to be no medium", param=where)
        return given[comma + 1 :]
    path = given.startswith((".", "~", "/", "\\")) and not given.startswith(JPEG_BEGINS)
    if path or ":" in given[:64]:
        raise RequestError(
            403, "url_not_allowed", f"{where}: this address is not fetched; send a data URL", "permission_error", where
        )
    return given


COUNTED_PARTS: dict[str, MediaKind] = {
    "image_url": "image", "input_image": "image", "audio_url": "audio", "input_audio": "audio", "video_url": "video",
}  # fmt: skip
MEDIA_MOST: dict[MediaKind, int] = {"image": 16, "audio": 8, "video": 2}
PARTS_MOST = 1024  # of one request


def check_counts(rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a request with more parts than are read, before any of them is looked at. Raises RequestError."""
    lists = [content for row in rows if isinstance(content := row.get("content"), list)]
    kinds = [part.get("type") for parts in lists for part in parts if isinstance(part, Mapping)]
    counts = Counter(COUNTED_PARTS[kind] for kind in kinds if isinstance(kind, str) and kind in COUNTED_PARTS)
    if sum(map(len, lists)) > PARTS_MOST or any(counts[kind] > most for kind, most in MEDIA_MOST.items()):
        allowed = ", ".join(f"{most} {kind}s" for kind, most in MEDIA_MOST.items())
        raise RequestError(413, "too_many_parts", f"at most {PARTS_MOST} parts are read, of them {allowed}")
