"""The words of the protocol, without a connection: addresses, refusals, parts of a message, chunks of a stream."""

from __future__ import annotations

import json
import mimetypes
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from descant.errors import OptionError, RequestError, SessionError, shortened
from descant.files import read_file
from descant.types import Audio, Image, Part, Text, Video

STREAM_RATE_HZ = 24_000  # of pcm16 in a stream
SAMPLE_BYTES = 2
LINE_BYTES_MOST = 32 << 20  # of one event; a server whose line never ends is let go
SENT_FILE_BYTES = 64 << 20  # of one file that is sent
API_ROOT = "/v1"
KEY_VARIABLE = "DESCANT_KEY"
DONE = "[DONE]"


def api_base(url: str) -> str:
    """The address of an API: of a server, with or without /v1 -> with it. Raises OptionError."""
    parts = urlsplit(url.strip())
    try:
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        known = False
    if not known or parts.query or parts.fragment or parts.username is not None:
        raise OptionError(f"--url {shortened(url)} is no address of a server; write http://127.0.0.1:8000")
    path = parts.path.rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path if path.endswith(API_ROOT) else path + API_ROOT}"


def refusal(status: int, body: bytes) -> RequestError:
    """The error of a response: the server's own words, and what to do next where that is known."""
    try:
        told = json.loads(body)["error"]
        message = told["message"] if isinstance(told, Mapping) else str(told)
        code = str(told.get("code")) if isinstance(told, Mapping) else "unknown"
    except (ValueError, KeyError, TypeError, RecursionError):
        message = body[:200].decode(errors="replace").strip() or "nothing"
        code = "unknown"
    hint = ""
    if status in (401, 403):
        hint = f"; give its key by --key, or by {KEY_VARIABLE} in the environment"
    elif status == 404:
        hint = "; is this the address of an OpenAI-compatible server?"
    elif status in (429, 503):
        hint = "; ask again later"
    return RequestError(status, code, f"the server refused ({status}): {message}{hint}")


# ---------------------------------------------------------------- what is sent


def data_url(source: object, fallback: str) -> tuple[str, str]:
    """(base64, MIME type) of a path or of bytes. Raises OptionError for a file that cannot be sent."""
    if isinstance(source, bytes):
        return b64encode(source).decode(), fallback
    if not isinstance(source, str | Path):
        raise OptionError("only files can be sent to a server; save the medium, and name its file")
    data = read_file(source, SENT_FILE_BYTES, lambda _, message: OptionError(message))
    return b64encode(data).decode(), mimetypes.guess_type(str(source))[0] or fallback


def content_part(part: Part) -> dict[str, Any]:
    """A part of a message in the words of chat completions. Raises OptionError."""
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, Image):
        data, kind = data_url(part.source, "image/png")
        return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}
    if isinstance(part, Audio):
        data, kind = data_url(part.source, "audio/wav")
        form = {"audio/x-wav": "wav", "audio/mpeg": "mp3"}.get(kind, kind.partition("/")[2])
        return {"type": "input_audio", "input_audio": {"data": data, "format": form}}
    if isinstance(part, Video):
        data, kind = data_url(part.source, "video/mp4")
        return {"type": "video_url", "video_url": {"url": f"data:{kind};base64,{data}"}}
    raise OptionError("calls of tools are not sent from here; leave them out")


# ---------------------------------------------------------------- what comes back


@dataclass(frozen=True)
class ChunkDelta:
    """One chunk of a stream. pcm: whole 16-bit samples at STREAM_RATE_HZ; reason: why the answer ended; usage: at its
    end."""

    text: str = ""
    pcm: bytes = b""
    reason: str | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)


def lines_of(blocks: Iterable[bytes]) -> Iterator[str]:
    """The lines of a body that comes in blocks. Raises SessionError for one that does not end."""
    rest = bytearray()
    for block in blocks:
        rest += block
        *whole, rest = rest.split(b"\n")
        for line in whole:
            yield line.decode(errors="replace").rstrip("\r")
        if len(rest) > LINE_BYTES_MOST:
            raise SessionError(f"the server sent a line of over {LINE_BYTES_MOST:,} bytes; is it the right address?")
    if rest:
        yield rest.decode(errors="replace")


def deltas_of(lines: Iterable[str]) -> Iterator[ChunkDelta]:
    """The chunks of a streamed completion. A sample that is cut in two comes whole, with its second half.

    Raises SessionError where the stream ends before the answer does or is no stream, RequestError for one that fails.
    """
    ended = False
    half = b""
    for line in lines:
        if not line.startswith("data:"):
            continue  # comments and empty lines keep a connection alive
        told = line[5:].strip()
        if told == DONE:
            return
        delta = delta_of(told)
        ended = ended or delta.reason is not None
        pcm = half + delta.pcm
        whole = len(pcm) // SAMPLE_BYTES * SAMPLE_BYTES
        half = pcm[whole:]
        yield replace(delta, pcm=pcm[:whole])
    if not ended:  # some servers leave [DONE] out
        raise SessionError("the server's stream broke off before its answer had ended; ask again")


def delta_of(told: str) -> ChunkDelta:
    """One chunk. Raises SessionError and RequestError."""
    try:
        chunk = json.loads(told)
        if "error" in chunk:
            raise refusal(500, told.encode())
        if not chunk.get("choices"):
            return ChunkDelta(usage=chunk.get("usage") or {})
        choice = chunk["choices"][0]
        delta = choice.get("delta") or {}
        audio = delta.get("audio") or {}
        return ChunkDelta(
            text=(delta.get("content") or "") + (audio.get("transcript") or ""),
            pcm=b64decode(audio.get("data") or "", validate=True),
            reason=choice.get("finish_reason"),
            usage=chunk.get("usage") or {},
        )
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
        raise SessionError(f"the server sent {shortened(told)}, which is no chunk of a completion") from None
