"""JSON of strangers: what no two readers would read alike is refused, and what is large costs little before it is.

Refused beside what is no JSON: a byte order mark, NaN and infinite numbers (also 1e400), a key that stands twice in one
object, half a surrogate pair, more than DEPTH_MOST levels and more than NODES_MOST values.
"""

from __future__ import annotations

import json
import math
import re
from base64 import b64decode
from binascii import Error
from typing import Any

from descant.errors import RequestError

DEPTH_MOST = 32
NODES_MOST = 100_000
DECODED_CHARACTERS = 1 << 20  # of base64 at once: other threads get their turn in between; a multiple of 4
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_BRACKETS = re.compile(rb"[][{}]")


def strict_json(data: bytes) -> Any:
    """The value of a JSON text in UTF-8. Raises RequestError ("invalid_json", "duplicate_key")."""
    check_structure(data)
    try:
        value = json.loads(
            data.decode(), parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_unique
        )  # a byte order mark is an error of its own
    except (ValueError, RecursionError):
        raise RequestError(400, "invalid_json", "the body is not JSON (UTF-8, finite numbers)") from None
    if _SURROGATE.search(data):
        _check_surrogates(value)
    return value


def check_structure(data: bytes) -> None:
    """Refuse what is nested too deep or has too many values, by a look at brackets and commas outside of strings."""
    depth = nodes = at = 0
    while True:
        quote = data.find(b'"', at)
        plain = data[at:] if quote < 0 else data[at:quote]
        nodes += plain.count(b",") + 1
        for bracket in _BRACKETS.finditer(plain):
            depth += 1 if bracket.group() in b"[{" else -1
            nodes += 1
            if depth > DEPTH_MOST or nodes > NODES_MOST:
                raise RequestError(400, "invalid_json", "the body is nested too deep, or has too many values")
        if nodes > NODES_MOST:
            raise RequestError(400, "invalid_json", "the body has too many values")
        if quote < 0 or (at := _end_of_string(data, quote + 1)) < 0:
            return


def _end_of_string(data: bytes, at: int) -> int:
    """The place behind a string whose text begins at ``at``; -1: it has no end."""
    while (quote := data.find(b'"', at)) >= 0:
        before = quote
        while before > at and data[before - 1] == 0x5C:  # a backslash
            before -= 1
        if (quote - before) % 2 == 0:
            return quote + 1
        at = quote + 1
    return -1


def _no_constant(name: str) -> float:
    raise RequestError(400, "invalid_json", f"the body has {name}, which is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise RequestError(400, "invalid_json", "the body has a number that is too large")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise RequestError(400, "duplicate_key", "an object of the body has a key twice")
    return made


def _check_surrogates(value: object) -> None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise RequestError(400, "invalid_json", "a string of the body has half a surrogate pair") from None
    elif isinstance(value, list):
        for one in value:
            _check_surrogates(one)
    elif isinstance(value, dict):
        for key, one in value.items():
            _check_surrogates(key)
            _check_surrogates(one)


def strict_base64(text: str, most_bytes: int, where: str) -> bytes:
    """The bytes of base64. Raises RequestError ("invalid_base64", "media_too_large")."""
    if len(text) * 3 // 4 > most_bytes + 2:
        raise RequestError(413, "media_too_large", f"{where} has more than {most_bytes:,} bytes", param=where)
    if len(text) % 4 or text.endswith("==="):  # the decoder is not so strict about the end
        raise RequestError(400, "invalid_base64", f"{where} is no base64", param=where)
    try:
        parts = [
            b64decode(text[at : at + DECODED_CHARACTERS], validate=True)
            for at in range(0, len(text), DECODED_CHARACTERS)
        ]
    except (Error, ValueError):
        raise RequestError(400, "invalid_base64", f"{where} is no base64", param=where) from None
    if any(len(part) % 3 for part in parts[:-1]):  # padding in the middle
        raise RequestError(400, "invalid_base64", f"{where} is no base64", param=where)
    return b"".join(parts)
