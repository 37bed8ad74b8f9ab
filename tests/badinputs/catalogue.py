"""The catalogue: bodies, fields and addresses that a server refuses, with the status that is right.

ASK is the request that every case spoils in one place.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from tests.inputs import media as made

CHAT = "/v1/chat/completions"
ASK = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "seed": 1, "max_tokens": 6}
SOUND = b64encode(made.wav(made.tone(0.5, 16000), 16000)).decode()
PICTURE = "data:image/png;base64," + b64encode(made.image_file(made.picture(56, 56))).decode()

BODIES: dict[str, bytes] = {
    "nothing": b"",
    "cut": b'{"messages": [',
    "a list": b"[]",
    "a number": b"5",
    "null": b"null",
    "deep": b"[" * 100_000,
    "NaN": b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
    "no UTF-8": b'{"messages": "\xff"}',
    "no messages": b"{}",
    "empty messages": b'{"messages": []}',
    "a byte order mark": b"\xef\xbb\xbf{}",
}


def said(content: object, role: str = "user") -> list[dict[str, Any]]:
    return [{"role": role, "content": content}]


def media(kind: str, url: object) -> list[dict[str, Any]]:
    return said([{"type": kind, kind: {"url": url}}])


FIELDS: dict[str, tuple[dict[str, Any], int]] = {
    "temperature below 0": ({"temperature": -1}, 400),
    "temperature above 2": ({"temperature": 2.1}, 400),
    "temperature hot": ({"temperature": "hot"}, 400),
    "top_p 0": ({"top_p": 0}, 400),
    "top_p above 1": ({"top_p": 1.1}, 400),
    "max_tokens 0": ({"max_tokens": 0}, 400),
    "max_tokens huge": ({"max_tokens": 2**63}, 400),
    "max_tokens half": ({"max_tokens": 1.5}, 400),
    "max_tokens true": ({"max_tokens": True}, 400),
    "n": ({"n": 10**9}, 400),
    "seed": ({"seed": -1}, 400),
    "stops": ({"stop": ["x"] * 1000}, 400),
    "stop empty": ({"stop": ""}, 400),
    "stop long": ({"stop": "x" * 10**5}, 400),
    "logprobs": ({"logprobs": "yes"}, 400),
    "tools": ({"tools": [{}]}, 400),
    "a format": ({"response_format": {"type": "yaml"}}, 400),
    "a schema": ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "zzzz"}}}}, 400),
    "modalities": ({"modalities": ["video"]}, 400),
    "sound without a wish": ({"modalities": ["audio"]}, 400),
    "a sound format": ({"modalities": ["audio"], "audio": {"voice": "x", "format": "mid"}}, 400),
    "stream yes": ({"stream": "yes"}, 400),
    "a model's name": ({"model": "x" * 10**5}, 400),
    "a role": ({"messages": said("x", "wizard")}, 400),
    "no content": ({"messages": [{"role": "user"}]}, 400),
    "a number as content": ({"messages": said(5)}, 400),
    "a part without a type": ({"messages": said([{}])}, 400),
    "a part of another type": ({"messages": said([{"type": "smell"}])}, 400),
    "many messages": ({"messages": said("x") * 1000}, 400),
    "many parts": ({"messages": said([{"type": "text", "text": "x"}] * 100)}, 413),
    "a lone surrogate": ({"messages": said("\ud800")}, 400),
    "long text": ({"messages": said("a " * 40_000)}, 400),
    "no base64": ({"messages": media("image_url", "data:image/png;base64,***")}, 400),
    "no picture": ({"messages": media("image_url", "data:image/png;base64,AAAA")}, 400),
    "a sound as a picture": ({"messages": media("image_url", f"data:image/png;base64,{SOUND}")}, 400),
    "a percent URL": ({"messages": media("image_url", "data:image/png,%89PNG")}, 400),
    "html": ({"messages": media("image_url", "data:text/html;base64,PGI+")}, 400),
    "no sound": ({"messages": said([{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}])}, 400),
}
ADDRESSES = (
    "file:///etc/passwd", "/etc/passwd", "~/x.png", "http://169.254.169.254/", "https://example.com/cat.png",
    "ftp://x/y", "data:,x", "javascript:alert(1)", "concat:a|b", "../x.png",
)  # fmt: skip
