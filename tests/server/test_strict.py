"""JSON and base64 of strangers: all that is well formed is read as Python reads it, and what is not is refused."""

from __future__ import annotations

import json
import math
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from descant.errors import RequestError
from descant.server import strict
from descant.server.strict import strict_base64, strict_json

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=30,
)


def refused(data: bytes) -> str:
    with pytest.raises(RequestError) as caught:
        strict_json(data)
    assert caught.value.status == 400
    return caught.value.code


@settings(max_examples=200, deadline=None)
@given(VALUES, st.booleans())
def test_what_is_json_is_read(value: Any, ascii_only: bool) -> None:
    assert strict_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=60) | st.text('[]{}",:\\0e9ntu d8', max_size=40).map(str.encode))
def test_anything_else_is_refused_and_nothing_is_raised_beside(data: bytes) -> None:
    """Whatever strict_json takes, json takes and gives alike."""
    try:
        value = strict_json(data)
    except RequestError:
        return
    assert value == json.loads(data)


REFUSED = {
    b"": "invalid_json", b"{": "invalid_json", b"\xef\xbb\xbf{}": "invalid_json", b'"\xff"': "invalid_json",
    b"NaN": "invalid_json", b"-Infinity": "invalid_json", b"1e400": "invalid_json", b"[-1e999]": "invalid_json",
    b"1" * 5000: "invalid_json", b'{"a": 1, "a": 1}': "duplicate_key",
    b'[{"b": {"a": 1, "\\u0061": 2}}]': "duplicate_key",
    b'"\\ud800"': "invalid_json", b'{"\\uDFFF": 1}': "invalid_json", b'"\\ud800\\u0041"': "invalid_json",
    b"[" * 33 + b"]" * 33: "invalid_json", b"[" * 100_000: "invalid_json", b'{"a":' * 100_000: "invalid_json",
    b"[" + b"0," * 100_000 + b"0]": "invalid_json", b"[" + b"[]," * 60_000 + b"0]": "invalid_json",
    b'"' + b"\\" * 99_999: "invalid_json", b'{"a": "\x00"}': "invalid_json",
}  # fmt: skip


@pytest.mark.parametrize("data", REFUSED, ids=lambda data: repr(data[:20]))
def test_what_readers_do_not_read_alike(data: bytes) -> None:
    assert refused(data) == REFUSED[data]


FINE: list[Any] = [
    "[" * 31 + "]" * 31,
    '"' + "[{" * 10_000 + '"',
    '"\\ud83d\\ude00"',
    '["\\"[", "\\\\", "]"]',
    "[" + "0," * 90_000 + "0]",
]


@pytest.mark.parametrize("text", FINE, ids=lambda text: text[:20])
def test_what_only_looks_like_it(text: str) -> None:
    assert strict_json(text.encode()) == json.loads(text)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 20))
def test_base64_in_pieces_is_base64(data: bytes, fours: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict, "DECODED_CHARACTERS", 4 * fours)
        text = b64encode(data).decode()
        assert strict_base64(text, 300, "x") == data
        for spoilt in (text + "=", text[:-1] + "*", text + "A", text + "====", "=" + text):
            if spoilt != text:
                with pytest.raises(RequestError) as caught:
                    strict_base64(spoilt, 300, "x")
                assert caught.value.code == "invalid_base64"


def test_base64_of_too_much_is_not_decoded() -> None:
    with pytest.raises(RequestError) as caught:
        strict_base64("*" * 5000, 3000, "x")
    assert caught.value.status == 413 and caught.value.code == "media_too_large"
    assert math.isclose(len(strict_base64("A" * 4000, 3000, "x")), 3000)
