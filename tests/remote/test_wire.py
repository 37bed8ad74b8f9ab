"""The protocol's words: addresses, lines in any cuts, samples in any cuts, and whatever a server may send."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from descant.errors import DescantError, OptionError, RequestError, SessionError
from descant.remote import wire
from descant.remote.heard import Heard
from descant.types import Audio, Image, Text, ToolCall, Video
from tests.remote.conftest import chunk


@pytest.mark.parametrize(
    "url, base",
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1"),
        ("https://host.example/v1/", "https://host.example/v1"),
        (" http://[::1]:8000/v1 ", "http://[::1]:8000/v1"),
        ("http://host/models/v1", "http://host/models/v1"),
        ("http://host/proxy", "http://host/proxy/v1"),
    ],
)
def test_an_address_is_taken_with_and_without_its_path(url: str, base: str) -> None:
    assert wire.api_base(url) == base


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8000", "ws://h", "file:///x", "http://", "http://h:99999999", "http://h?x=1", "http://u:p@h"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(OptionError, match=r"write http://127\.0\.0\.1:8000"):
        wire.api_base(url)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(st.lists(st.text(st.characters(exclude_characters="\r\n")), max_size=6), st.lists(st.integers(0, 999)))
def test_lines_are_the_same_in_any_cuts(lines: list[str], cuts: list[int]) -> None:
    body = "".join(f"{line}\r\n" for line in lines).encode(errors="surrogatepass")
    assert list(wire.lines_of(pieces(body, cuts))) == [
        line.decode(errors="replace") for line in body.split(b"\r\n")[:-1]
    ]


@given(st.binary(max_size=40).filter(lambda data: len(data) % 2 == 0), st.lists(st.integers(0, 99), max_size=6))
def test_samples_are_the_same_in_any_cuts(pcm: bytes, cuts: list[int]) -> None:
    chunks = [chunk(sound=piece) for piece in pieces(pcm, cuts)] + [chunk(reason="stop")]
    deltas = list(wire.deltas_of(f"data: {json.dumps(one)}" for one in chunks))
    assert b"".join(delta.pcm for delta in deltas) == pcm and all(len(delta.pcm) % 2 == 0 for delta in deltas)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["choices", "delta", "audio", "data", "content", "error", "usage"]), inner)
    ),
)


@given(JSON | st.text(max_size=30))
def test_whatever_a_server_sends_is_a_chunk_or_one_of_our_errors(told: object) -> None:
    line = told if isinstance(told, str) else json.dumps(told)
    try:
        delta = wire.delta_of(line)
    except DescantError:
        return
    assert isinstance(delta.text, str) and isinstance(delta.pcm, bytes)


def test_a_stream_that_ends_too_soon_is_told_and_one_without_a_last_word_is_not() -> None:
    said = [f"data: {json.dumps(chunk('hello'))}", ": a comment", ""]
    with pytest.raises(SessionError, match="broke off"):
        list(wire.deltas_of(said))
    ended = [*said, f"data: {json.dumps(chunk(reason='stop'))}"]
    assert "".join(delta.text for delta in wire.deltas_of(ended)) == "hello"
    with pytest.raises(RequestError, match="out of memory"):
        list(wire.deltas_of([*said, 'data: {"error": {"message": "out of memory"}}']))


def test_a_line_without_an_end_is_cut() -> None:
    with pytest.raises(SessionError, match="bytes"):
        list(wire.lines_of(b"x" * (1 << 20) for _ in range(40)))


@pytest.mark.parametrize(
    "status, body, words",
    [
        (401, b'{"error": {"message": "no key", "code": "invalid_api_key"}}', r"401.*no key.*--key"),
        (404, b"<html>not here</html>", r"404.*not here.*OpenAI-compatible"),
        (503, b'{"error": "busy"}', r"503.*busy.*later"),
        (500, b"", r"500.*nothing"),
        (400, b"[" * 5000, r"400"),
    ],
)
def test_a_refusal_bears_the_servers_words_and_the_next_step(status: int, body: bytes, words: str) -> None:
    error = wire.refusal(status, body)
    assert error.status == status
    with pytest.raises(RequestError, match=words):
        raise error


def test_parts_are_sent_as_data_and_only_from_files() -> None:
    assert wire.content_part(Text("x")) == {"type": "text", "text": "x"}
    assert wire.content_part(Image(b"\x89PNG"))["image_url"]["url"] == "data:image/png;base64,iVBORw=="
    assert wire.content_part(Audio(b"RIFF"))["input_audio"] == {"data": "UklGRg==", "format": "wav"}
    assert wire.content_part(Video(b"x"))["video_url"]["url"].startswith("data:video/mp4;base64,")
    for part in (Image("nowhere.png"), ToolCall("f", {})):
        with pytest.raises(OptionError):
            wire.content_part(part)


def test_a_listener_counts_where_it_ran_dry() -> None:
    second = bytes(2 * wire.STREAM_RATE_HZ)
    heard = Heard(begin=0)
    heard.take("a", b"", 0.5)
    heard.take("", second, 1.0)  # heard from 1.0 to 2.0
    heard.take("", second, 1.9)  # in time: to 3.0
    heard.take("", second, 3.5)  # half a second late: to 4.5
    heard.take("", second, 4.4)
    assert (heard.underruns, heard.stalled_s, heard.audio_s) == (1, 0.5, 4.0)
    assert (heard.first_text_s, heard.first_audio_s, heard.rtf) == (0.5, 1.0, 4.4 / 4)
