"""``descant chat --url``: a talk with a real server, and with those that are away, broken, deaf or mute."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from descant.cli.errors import run
from descant.errors import OptionError, RequestError, SessionError
from descant.remote.server import RemoteServer, question
from descant.remote.talk import RemoteTalk
from descant.types import AudioChunk, Event, Finished, Image, TextDelta
from tests.inputs import media
from tests.remote.conftest import Scripted, chunk
from tests.server.conftest import KEY, Running


def said(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lines: str, *options: str) -> int:
    """``descant chat`` with what is typed."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    monkeypatch.setattr("descant.cli.chat.find_player", lambda: None)
    return run(["chat", "--out", str(tmp_path / "talk"), *options])


def test_a_talk_is_what_the_same_requests_give(server: Running, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(media.image_file(media.picture(56, 56)))
    with RemoteServer(server.url, KEY) as remote, server.client() as client:
        assert (remote.models(), remote.voices()) == (["tiny"], ("Chelsie", "Ethan"))
        talk = RemoteTalk(remote, remote.model(None), max_tokens=6, seed=1)
        talk.add("hello")
        first = list(talk.respond())
        talk.add(Image(str(picture)))
        talk.add("and now?")
        second = list(talk.respond(voice="Ethan"))
        body = question(talk.messages[:-1], "tiny", voice="Ethan", max_tokens=6, seed=1)
        again = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["audio"]["transcript"]
    assert [message["role"] for message in talk.messages] == ["user", "assistant"] * 2
    assert talk.messages[1]["content"] == said(first) and again == said(second) == talk.messages[3]["content"]
    for events in (first, second):
        last = events[-1]
        assert isinstance(last, Finished) and last.text == said(events) and last.usage.codes > 0
        sound = [event for event in events if isinstance(event, AudioChunk)]
        lengths = [len(event.samples) for event in sound]
        assert [event.start_sample for event in sound] == [sum(lengths[:n]) for n in range(len(lengths))]
        assert sum(lengths) == last.usage.samples and last.timings.first_audio_s == sound[0].t
    assert server.idle()


def test_a_turn_is_taken_back_and_a_talk_goes_on_in_another(scripted: Scripted) -> None:
    scripted.stream(chunk("Yes.", reason="stop"))
    with RemoteServer(scripted.url, KEY) as remote:
        talk = RemoteTalk(remote, "m", speech=False)
        for words in ("one", "two"):
            talk.add(words)
            list(talk.respond())
        other = RemoteTalk(remote, "m", speech=False, seed=2)
        other.begin_with(talk)
        first = talk.messages[:2]
        for key in reversed(talk.keys[2:]):
            talk.remove(key)
        assert talk.messages == first and talk.keys == (1, 2) and other.keys == (1, 2, 3, 4)
        with pytest.raises(OptionError):
            talk.remove(3)


def test_leaving_an_answer_cancels_it_and_keeps_what_was_said(server: Running) -> None:
    with RemoteServer(server.url, KEY) as remote:
        talk = RemoteTalk(remote, "tiny", speech=False, max_tokens=3000, seed=3)
        talk.add("hello")
        for event in talk.respond():
            if isinstance(event, TextDelta):
                talk.cancel()
                break
        assert talk.messages[-1] == {"role": "assistant", "content": event.text}  # type: ignore[union-attr]
        assert server.idle()


def test_the_shell_talks_with_a_server(
    server: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DESCANT_KEY", KEY)
    typed = f"hello\n/voice\n/voice Ethan\n/save {tmp_path}\n/new\nhello\n"
    assert shell(monkeypatch, tmp_path, typed, "--url", server.url, "--max-tokens", "5", "--seed", "1") == 0
    out, err = capsys.readouterr()
    assert f"tiny at {server.url}" in err and "Chelsie, Ethan" in err and "Ethan speaks" in err
    answers = out.strip().splitlines()
    assert len(answers) == 2 and answers[0] == answers[1]
    assert json.loads((tmp_path / "talk.json").read_text())[1]["content"][0]["text"].strip() == answers[0].strip()
    assert (tmp_path / "talk" / "answer-2.wav").stat().st_size > 1000
    assert server.idle()


def test_a_server_that_is_away_has_no_such_model_or_wants_a_key_is_told(
    server: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = {
        "nobody answers": ["--url", "http://127.0.0.1:9"],
        "--key": ["--url", server.url],
        "401": ["--url", server.url, "--key", "wrong"],
        "it has tiny": ["--url", server.url, "--key", KEY, "--model", "other"],
        "this model has Chelsie": ["--url", server.url, "--key", KEY, "--voice", "Bob"],
        "--device is the server's": ["--url", server.url, "--device", "cpu"],
        "no address": ["--url", "nowhere"],
        "printable": ["--url", server.url, "--key", "a\nb"],
    }
    for words, options in cases.items():
        assert shell(monkeypatch, tmp_path, "hi\n", *options) == 2, words
        err = capsys.readouterr().err
        assert words in err and KEY not in err, words


def test_a_stream_that_breaks_keeps_the_talk(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted.models("m")
    with RemoteServer(scripted.url) as remote:
        talk = RemoteTalk(remote, "m", speech=False)
        scripted.stream(chunk("Good "), chunk("day.", reason="stop"))
        talk.add("hello")
        assert said(list(talk.respond())) == "Good day."
        scripted.stream(chunk("Half an"), done=False)
        talk.add("and?")
        with pytest.raises(SessionError, match="broke off"):
            list(talk.respond())
        assert talk.messages[-1]["content"] == "Half an"
        scripted.stream("no JSON")
        talk.add("and?")
        with pytest.raises(SessionError, match="no chunk"):
            list(talk.respond())
        assert len(talk.messages) == 4
        scripted.replies["/v1/chat/completions"] = (429, b'{"error": {"message": "too many"}}')
        talk.add("and?")
        with pytest.raises(RequestError, match="too many"):
            list(talk.respond())
        scripted.stream(chunk("Yes.", reason="stop"))
        talk.add("again?")
        assert said(list(talk.respond())) == "Yes."
    assert [message["content"] for message in scripted.asked[-1]["messages"][1::2]] == ["Good day.", "Half an"]


def test_a_server_without_a_voice(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One refuses sound, and one writes only; neither lists its voices."""
    scripted.models("writer")
    scripted.replies["/v1/chat/completions"] = (400, b'{"error": {"message": "modalities: text only"}}')
    assert shell(monkeypatch, tmp_path, "hi\n", "--url", scripted.url) == 0
    assert "text only; a model without a voice needs --no-speech" in capsys.readouterr().err
    scripted.stream(chunk("Yes.", reason="stop"))
    assert shell(monkeypatch, tmp_path, "hi\n/voice\n/voice Anna\nhi\n", "--url", scripted.url) == 0
    out, err = capsys.readouterr()
    assert out.split() == ["Yes.", "Yes."] and "sent no sound" in err and "no voice is listed" in err
    assert scripted.asked[-1]["audio"] == {"voice": "Anna", "format": "pcm16"}
    assert shell(monkeypatch, tmp_path, "hi\n", "--url", scripted.url, "--no-speech") == 0
    assert "modalities" not in scripted.asked[-1] and "sent no sound" not in capsys.readouterr().err


def test_a_server_that_lists_nothing_is_asked_by_name(scripted: Scripted) -> None:
    with RemoteServer(scripted.url) as remote:
        assert remote.models() == [] and remote.voices() == () and remote.model("m") == "m"
        scripted.replies["/v1/models"] = (200, b"hello")
        with pytest.raises(SessionError, match="no list of names"):
            remote.models()


def test_nothing_of_a_proxy_or_a_redirect_gets_the_key(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    scripted.models("m")
    with RemoteServer(scripted.url, "k") as remote:
        assert remote.models() == ["m"] and scripted.headers["authorization"] == "Bearer k"
        scripted.replies["/v1/models"] = (302, b"")
        with pytest.raises(RequestError, match="302"):
            remote.models()


def test_sound_is_what_was_sent(scripted: Scripted) -> None:
    pcm = (np.arange(-50, 50) * 300).astype("<i2").tobytes()
    scripted.models("m")
    scripted.stream(chunk("a", pcm[:33]), chunk("b", pcm[33:]), chunk(reason="stop"))
    with RemoteServer(scripted.url) as remote:
        talk = RemoteTalk(remote, "m")
        talk.add("x")
        sound = [event.samples for event in talk.respond() if isinstance(event, AudioChunk)]
    np.testing.assert_array_equal(np.concatenate(sound) * 32768, np.frombuffer(pcm, "<i2"))


def test_without_the_extra_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['httpx'] = None; from descant.cli.errors import run; sys.exit(run(['chat', '--url', 'http://127.0.0.1:9']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "pip install 'descant[remote]'" in done.stderr
