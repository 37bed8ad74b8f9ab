"""``descant bench --url``: every request counted once, figures that are true, and servers that fail under it."""

from __future__ import annotations

import json
import threading
import xml.etree.ElementTree as ET
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.sync.server import ServerConnection, serve

from descant.bench import load
from descant.bench.load_report import load_picture
from descant.cli.bench import SPOKEN
from descant.cli.errors import run
from descant.errors import DescantError, OptionError, RequestError, SessionError
from descant.remote.heard import Heard
from descant.remote.spoken import spoken_turn
from tests.inputs import media
from tests.remote.conftest import Scripted, chunk
from tests.server.conftest import KEY, Running

SECOND = bytes(2 * 24_000)


# ---------------------------------------------------------------- figures


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_percentiles_rise_and_lie_between_the_ends(values: list[float]) -> None:
    told = load.percentiles("x", values)
    shares = [told[f"{share}_x"] for share in load.PERCENTILES]
    assert shares == sorted(shares) and set(told) == {"mean_x", "p50_x", "p90_x", "p95_x", "p99_x"}
    assert min(values) * 0.999 <= shares[0] and shares[-1] <= max(values) * 1.001  # type: ignore[operator]
    assert told["p50_x"] == pytest.approx(float(np.median(values)), rel=1e-3)


def test_the_figures_of_known_answers_are_known() -> None:
    level = load.LoadLevel("chat", 2, seconds=4.0, faults=["busy"])
    for late in (1.0, 2.0):
        heard = Heard(begin=0)
        heard.take("hi", b"", 0.1 * late)
        heard.take("", SECOND, 0.5 * late)
        heard.take("", SECOND, 2.0 * late)
        level.heard.append(heard)
    told = level.record()
    expected = {"max_concurrency": 2, "completed": 2, "failed": 1, "errors": ["busy"], "request_throughput": 0.5}
    expected |= {"audio_throughput": 1.0, "underruns": 2, "mean_ttft_ms": 150.0, "p50_audio_ttfp_ms": 750.0}
    expected |= {"mean_e2el_ms": 3000.0, "mean_audio_rtf": 1.5, "mean_audio_duration_s": 2.0}
    assert {name: told[name] for name in expected} == expected


@pytest.mark.parametrize("clients, turns", [(1, 1), (3, 4), (16, 2)])
def test_every_request_is_made_once_and_a_failure_costs_no_other(clients: int, turns: int) -> None:
    asked: list[int] = []

    def ask(number: int) -> Heard:
        asked.append(number)
        if number % 3 == 1:
            raise SessionError("away")
        return Heard()

    level = load.one_level("chat", ask, clients, turns)
    assert sorted(asked) == list(range(clients * turns))
    assert len(level.faults) == sum(number % 3 == 1 for number in asked)
    assert len(level.heard) + len(level.faults) == clients * turns


def test_clients_of_a_level_ask_at_the_same_time() -> None:
    together = threading.Barrier(5, timeout=20)

    def ask(number: int) -> Heard:
        together.wait()
        return Heard()

    assert len(load.one_level("chat", ask, 5, 3).heard) == 15


@pytest.mark.parametrize("text", ["", "0", "-1", "1,", "x", "1;2", "9999", "1.5"])
def test_levels_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="1,2,4,8"):
        load.levels_of(text)


# ---------------------------------------------------------------- a real server


def test_a_server_is_measured_over_both_routes(
    server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "load.json"
    spoken = tmp_path / "spoken.wav"
    spoken.write_bytes(media.wav(0.3 * media.noise(4800), 16000))
    options = [
        "--concurrency",
        "1,2",
        "--turns",
        "2",
        "--max-tokens",
        "6",
        "--prompt",
        "hello",
        "--spoken",
        str(spoken),
    ]
    assert run(["bench", "--url", server.url, "--key", KEY, "--json", str(out), *options]) == 0
    kept = json.loads(out.read_text())
    assert set(kept["routes"]) == {"/v1/chat/completions", "/v1/realtime"} and KEY not in out.read_text()
    for levels in kept["routes"].values():
        assert [(row["max_concurrency"], row["completed"], row["failed"]) for row in levels] == [(1, 2, 0), (2, 4, 0)]
        for row in levels:
            assert 0 < row["p50_ttft_ms"] <= row["p50_e2el_ms"] and row["p50_audio_ttfp_ms"] <= row["p50_e2el_ms"]
            assert row["p50_audio_rtf"] > 0 and row["audio_throughput"] > 0
    picture = out.with_suffix(".svg").read_text()
    assert ET.fromstring(picture).tag.endswith("svg") and "audio_ttfp" in picture
    shown = capsys.readouterr().out
    assert "ttfp" in shown and "/v1/realtime" in shown
    assert server.idle()


def test_text_alone_has_no_figures_of_sound(
    server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "load.json"
    options = ["--no-speech", "--concurrency", "1", "--turns", "1", "--max-tokens", "6", "--json", str(out)]
    assert run(["bench", "--url", server.url, "--key", KEY, *options]) == 0
    [row] = json.loads(out.read_text())["routes"]["/v1/chat/completions"]
    assert row["p50_audio_ttfp_ms"] is None and row["mean_audio_rtf"] is None and row["p50_ttft_ms"] > 0
    assert " - " in capsys.readouterr().out
    assert server.idle()


def test_what_cannot_be_measured_is_told_before_it_is(
    server: Running, scripted: Scripted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted.models("m")
    here = ["--url", server.url, "--key", KEY]
    cases = {
        "nobody answers": ["--url", "http://127.0.0.1:9"],
        "--key": ["--url", server.url],
        "it has tiny": [*here, "--model", "other"],
        "has this server /v1/realtime?": ["--url", scripted.url, "--routes", "realtime"],
        "known are chat, realtime": [*here, "--routes", "speech"],
        "1,2,4,8": [*here, "--concurrency", "many"],
        "no file": [*here, "--spoken", "nowhere.wav"],
        "leave them out beside --url": [*here, "--rows", "nano"],
        "the picture": [*here, "--json", str(tmp_path / "x.svg")],
        "needs --url": ["--model", "gpt-4o"],
    }
    for words, options in cases.items():
        assert run(["bench", *options]) == 2, words
        told = capsys.readouterr()
        assert words in told.err and not told.out, words


def test_requests_that_break_are_counted_and_the_others_are_measured(
    scripted: Scripted, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.models("m")
    whole = (200, "".join(f"data: {json.dumps(c)}\n\n" for c in (chunk("a", SECOND), chunk(reason="stop"))).encode())
    broken = (200, f"data: {json.dumps(chunk('half'))}\n\n".encode())
    left = iter([whole, whole, broken, whole, broken])

    class Turns(dict[str, tuple[int, bytes]]):
        def get(self, path: str, other: object = None) -> tuple[int, bytes]:  # type: ignore[override]
            return next(left) if path == "/v1/chat/completions" else self[path]

    scripted.replies = Turns(scripted.replies)
    out = tmp_path / "load.json"
    options = ["--routes", "chat", "--concurrency", "1", "--turns", "4", "--json", str(out)]
    assert run(["bench", "--url", scripted.url, *options]) == 2
    assert "2 requests failed; the first: the server's stream broke off" in capsys.readouterr().err
    [row] = json.loads(out.read_text())["routes"]["/v1/chat/completions"]
    assert (row["completed"], row["failed"]) == (2, 2) and row["audio_throughput"] > 0


# ---------------------------------------------------------------- sockets that misbehave


@contextmanager
def socket_of(act: Callable[[ServerConnection], None]) -> Iterator[str]:
    """The base of a server whose every socket does ``act``."""
    with serve(act, "127.0.0.1", 0) as home:
        thread = threading.Thread(target=home.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{home.socket.getsockname()[1]}/v1"
        home.shutdown()
        thread.join()


def tell(socket: ServerConnection, *events: object) -> None:
    for event in events:
        socket.send(event if isinstance(event, str) else json.dumps(event))


UPDATED = {"type": "session.updated"}
SOUND = {"type": "response.output_audio.delta", "delta": b64encode(SECOND).decode()}
WRONG = {
    "closed": [UPDATED],
    "half an answer": [UPDATED, SOUND],
    "no JSON": ["hello"],
    "no type": [{"kind": "x"}],
    "an error": [UPDATED, {"type": "error", "error": {"message": "no", "code": "x"}}],
    "no sound": [UPDATED, {"type": "response.output_audio.delta", "delta": "***"}],
    "a failed answer": [UPDATED, {"type": "response.done", "response": {"status": "failed", "status_details": {}}}],
    "an answer that is none": [UPDATED, {"type": "response.done", "response": None}],
}


@pytest.mark.parametrize("name", WRONG)
def test_a_socket_that_misbehaves_is_one_of_our_errors(name: str) -> None:
    with socket_of(lambda socket: tell(socket, *WRONG[name])) as base, pytest.raises((SessionError, RequestError)):
        spoken_turn(base, {}, "m", b"")


def test_a_turn_is_said_whole_and_heard_whole() -> None:
    said: list[dict[str, str]] = []

    def act(socket: ServerConnection) -> None:
        tell(socket, {"type": "session.created"}, UPDATED)
        while not said or said[-1]["type"] != "response.create":
            said.append(json.loads(socket.recv()))
        text = {"type": "response.output_audio_transcript.delta", "delta": "hi"}
        tell(socket, text, SOUND, SOUND, {"type": "response.done", "response": {"status": "completed"}})

    pcm = bytes(range(256)) * 40
    with socket_of(act) as base:
        heard = spoken_turn(base, {"authorization": "Bearer k"}, "a model", pcm)
    assert heard.text == "hi" and heard.audio_s == 2.0 and heard.underruns == 0
    kinds = [event["type"] for event in said]
    assert kinds[0] == "session.update" and kinds[-2:] == ["input_audio_buffer.commit", "response.create"]
    assert b"".join(b64decode(event["audio"]) for event in said if "audio" in event) == pcm


def test_a_server_without_sockets_is_told() -> None:
    with pytest.raises(DescantError, match="nobody answers"):
        spoken_turn("http://127.0.0.1:9/v1", {}, "m", b"")


def test_a_picture_of_one_level_is_drawn() -> None:
    level = load.LoadLevel("chat", 1, seconds=1.0, heard=[Heard()])
    kept = {"model": "<m>", "turns": 1, "routes": {"/v1/chat/completions": [level.record()]}}
    assert "&lt;m&gt;" in load_picture(kept) and ET.fromstring(load_picture(kept)) is not None
    assert SPOKEN.is_file()
