"""The command line, with a stand-in for the model: options, events, errors, exit codes, and an interactive talk."""

from __future__ import annotations

import io
import json
import resource
import signal
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from descant.cli import common
from descant.cli.errors import run
from descant.errors import WeightsError
from descant.types import Audio, Event, Image, Text, Video
from tests.stub import StubOmni, StubSession

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ("chat", "ask", "say", "transcribe", "inspect", "voices", "trace", "eval", "bench", "serve")


@pytest.fixture
def omni(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StubOmni:
    stub = StubOmni()
    monkeypatch.setattr(common, "open_model", lambda name, **options: stub)
    monkeypatch.setattr(common, "check_voice", lambda model, voice: None)
    monkeypatch.chdir(tmp_path)
    return stub


HEADS = {".png": b"\x89PNG\r\n\x1a\n", ".wav": b"RIFF\0\0\0\0WAVE", ".mp4": b"\0\0\0\x18ftypisom"}


def put(*names: str) -> None:
    """Files that begin as their kind does."""
    for name in names:
        Path(name).write_bytes(HEADS[Path(name).suffix] + bytes(20))


def python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT, check=False)


# ---------------------------------------------------------------- help


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    code = "import sys; from descant.cli import main; main(['--help']); print(sorted(sys.modules))"
    done = python("-c", code)
    assert done.returncode == 0 and all(f" {name} " in done.stdout for name in COMMANDS), done.stderr
    loaded = done.stdout.splitlines()[-1]
    assert not [m for m in ("torch", "numpy", "av", "PIL", "tokenizers", "safetensors") if f"'{m}'" in loaded]


def test_help_answers_in_half_a_second() -> None:
    def spent() -> float:  # processor time, because other programs may be busy; it is all that --help waits for
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    times = []
    for _ in range(3):
        start = spent()
        assert python("-m", "descant", "--help").returncode == 0
        times.append(spent() - start)
    assert min(times) < 0.5, times


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    assert f"descant {name}" in capsys.readouterr().out


def test_nothing_typed_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0 and "Usage" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0 and capsys.readouterr().out.startswith("descant ")


# ---------------------------------------------------------------- ask


def test_ask_prints_the_text_and_writes_the_sound(omni: StubOmni, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ask", "What is seven plus five?"]) == 0
    assert capsys.readouterr().out == "Seven plus five is twelve.\n"
    with wave.open("answer.wav") as file:
        assert file.getnframes() == 5 * 2400 and file.getframerate() == 24000
    messages, options = omni.calls[0]
    assert messages[0].content == (Text("What is seven plus five?"),)
    assert options == {"voice": None, "speech": True, "max_tokens": None, "seed": None}


def test_ask_passes_every_option_on(omni: StubOmni, monkeypatch: pytest.MonkeyPatch) -> None:
    put("a.png", "b.png", "c.wav", "d.mp4")
    seen: dict[str, object] = {}
    monkeypatch.setattr(common, "open_model", lambda name, **options: seen.update(options, name=name) or omni)
    words = "ask What? --image a.png --image b.png --audio c.wav --video d.mp4 --no-video-sound --model folder"
    words += " --voice Rex --out x.wav --seed 7 --latency low --max-tokens 9 --dtype bfloat16"
    assert run(words.split()) == 0
    messages, options = omni.calls[0]
    expected = (Image("a.png"), Image("b.png"), Audio("c.wav"), Video("d.mp4", use_audio=False), Text("What?"))
    assert messages[0].content == expected
    assert options == {"voice": "Rex", "speech": True, "max_tokens": 9, "seed": 7}
    assert seen == {"name": "folder", "latency": "low", "dtype": "bfloat16", "device": None}
    assert Path("x.wav").stat().st_size > 44 and not Path("answer.wav").exists()


def test_ask_without_speech_writes_no_sound(omni: StubOmni) -> None:
    assert run(["ask", "Hello", "--no-speech"]) == 0
    assert omni.calls[0][1]["speech"] is False and not list(Path().iterdir())


def test_a_spoken_question_needs_no_text(omni: StubOmni) -> None:
    put("q.wav")
    assert run(["ask", "--audio", "q.wav"]) == 0
    assert omni.calls[0][0][0].content == (Audio("q.wav"),)


def test_a_model_without_a_voice_answers_in_text(omni: StubOmni, capsys: pytest.CaptureFixture[str]) -> None:
    omni.voices = ()
    assert run(["ask", "Hello"]) == 0
    assert omni.calls[0][1]["speech"] is False and "no voice" in capsys.readouterr().err


def check_events(lines: list[str]) -> None:
    events = [json.loads(line) for line in lines]
    assert [set(e) for e in events if e["type"] == "text"] == [{"type", "t", "text"}] * 5
    sounds = [e for e in events if e["type"] == "audio"]
    assert all(set(e) == {"type", "t", "start_sample", "samples"} for e in sounds)
    assert [e["start_sample"] for e in sounds] == [0, 2400, 4800, 7200, 9600]
    assert set(events[-1]) == {"type", "t", "text", "reason", "usage", "timings"} and events[-1]["type"] == "finished"
    assert events[-1]["text"] == "".join(e["text"] for e in events if e["type"] == "text")
    assert [e["t"] for e in events] == sorted(e["t"] for e in events)


def test_events_to_stdout_are_nothing_but_json(omni: StubOmni, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ask", "Hello", "--events", "-"]) == 0
    check_events(capsys.readouterr().out.splitlines())


def test_events_to_a_file_leave_the_text_on_the_screen(omni: StubOmni, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ask", "Hello", "--events", "e.jsonl"]) == 0
    check_events(Path("e.jsonl").read_text().splitlines())
    assert capsys.readouterr().out == "Seven plus five is twelve.\n"


def test_an_answer_cannot_steer_the_terminal(omni: StubOmni, capsys: pytest.CaptureFixture[str]) -> None:
    omni.text = "red\x1b[31m \x07bell 👩‍🚀\n\tend"
    assert run(["ask", "Hello", "--no-speech"]) == 0
    assert capsys.readouterr().out == "red[31m bell 👩‍🚀\n\tend\n"


# ---------------------------------------------------------------- a process of its own: flushing, interrupting

SCRIPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a background job inherits is to ignore it
from descant.cli import common, main
from tests.stub import StubOmni, StubSession
common.open_model = lambda name, **options: StubOmni(pause=0.05, endless=True)
sys.exit(main(sys.argv[1:]))
"""


def start(tmp_path: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, *words]
    return subprocess.Popen(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": ""}, stdout=-1, stderr=-1, text=True
    )


def test_events_are_flushed_and_an_interrupt_leaves_a_whole_file(tmp_path: Path) -> None:
    process = start(tmp_path, "ask", "Hello", "--events", "-", "--out", "a.wav")
    assert process.stdout is not None and process.stderr is not None
    heard = [json.loads(process.stdout.readline()) for _ in range(6)]  # arrives while the answer goes on
    assert {e["type"] for e in heard} == {"text", "audio"} and process.poll() is None
    with wave.open(str(tmp_path / "a.wav")) as file:  # valid in the middle of the answer
        assert file.getnframes() >= 2400
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130 and errors.split() == ["stopped"]
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert file.getnframes() * 2 == (tmp_path / "a.wav").stat().st_size - 44


def test_a_reader_that_goes_away_ends_it_quietly(tmp_path: Path) -> None:
    process = start(tmp_path, "ask", "Hello", "--events", "-", "--out", "a.wav")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=20) == 1 and process.stderr.read() == ""
    process.stderr.close()


# ---------------------------------------------------------------- the other commands


def test_say(omni: StubOmni, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["say", "Good morning.", "--out", "s.wav", "--voice", "Rex", "--seed", "3"]) == 0
    assert omni.calls == [("Good morning.", {"voice": "Rex", "seed": 3})]
    assert Path("s.wav").stat().st_size > 44 and "s.wav" in capsys.readouterr().err


def test_transcribe(omni: StubOmni, capsys: pytest.CaptureFixture[str]) -> None:
    put("r.wav")
    assert run(["transcribe", "r.wav"]) == 0
    assert capsys.readouterr().out == "what was said\n"


def test_trace_reads_the_model_cards_form(omni: StubOmni) -> None:
    Path("sub").mkdir()
    Path("sub/cat.png").touch()
    content = [
        {"type": "image", "image": "cat.png"},
        {"type": "video", "video": "far.mp4", "use_audio_in_video": True},
        {"type": "text", "text": "What?"},
    ]
    Path("sub/talk.json").write_text(json.dumps([{"role": "user", "content": content}]))
    words = "trace nano --messages sub/talk.json --out t.safetensors --max-text 5 --max-codes 6"
    assert run(words.split()) == 0
    assert set(load_file("t.safetensors")) == {"text_ids", "wav"}
    messages, options = omni.calls[0]
    assert messages[0].content == (Image("sub/cat.png"), Video("far.mp4", use_audio=True), Text("What?"))
    assert options == {"max_text": 5, "max_codes": 6, "voice": None}


# ---------------------------------------------------------------- errors

WRONG = {
    "no such command": "asl",
    "no such option": "ask Hello --loudness 3",
    "a bad choice": "ask Hello --latency quick",
    "a bad number": "ask Hello --max-tokens many",
    "nothing asked": "ask",
    "a missing picture": "ask What? --image none.png",
    "a missing sound": "ask --audio none.wav",
    "a missing video": "ask What? --video none.mp4",
    "an unknown voice": "ask Hello --voice Bob",
    "sound and no sound": "ask Hello --no-speech --out a.wav",
    "no such folder for sound": "ask Hello --out none/a.wav",
    "a folder for sound": "ask Hello --out .",
    "no such folder for events": "ask Hello --events none/e.jsonl",
    "nothing to say": "say",
    "another kind of sound": "ask Hello --out a.mp3",
    "two outputs in one": "ask Hello --out a.wav --events a.wav",
    "stdout twice": "ask Hello --out - --events -",
    "a seed below zero": "ask Hello --seed -1",
    "no tokens": "ask Hello --max-tokens 0",
    "an address": "ask What? --image https://example.com/cat.png",
    "a missing recording": "transcribe none.wav",
    "a missing conversation": "trace nano --messages none.json --out t.safetensors",
    "no steps": "trace nano --messages none.json --out t.safetensors --max-text 0",
}


@pytest.mark.parametrize("words", WRONG.values(), ids=WRONG.keys())
def test_an_error_is_one_line_and_exit_code_2(omni: StubOmni, capsys: pytest.CaptureFixture[str], words: str) -> None:
    assert run(words.split()) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("descant: ") and len(err) > 20, err


BAD_TALKS = ("", "{", "[]", '[{"role": "user"}]', '[{"role": "user", "content": [{"type": "smell"}]}]')


@pytest.mark.parametrize("text", BAD_TALKS)
def test_a_bad_conversation_is_one_line(omni: StubOmni, capsys: pytest.CaptureFixture[str], text: str) -> None:
    Path("talk.json").write_text(text)
    assert run(["trace", "nano", "--messages", "talk.json", "--out", "t.safetensors"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def failing(error: Exception) -> object:
    def load(name: str, **options: object) -> StubOmni:
        raise error

    return load


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(common, "open_model", failing(WeightsError("shard 2 is truncated;\nfetch it again")))
    assert run(["ask", "Hello", "--no-speech"]) == 2
    assert capsys.readouterr().err == "descant: shard 2 is truncated; fetch it again\n"
    for words in (["--debug", "ask", "Hello", "--no-speech"], ["ask", "Hello", "--no-speech", "--debug"]):
        assert run(words) == 2
        assert "Traceback" in capsys.readouterr().err


def test_a_bug_is_named_by_its_type(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(common, "open_model", failing(ZeroDivisionError("division by zero")))
    assert run(["ask", "Hello", "--no-speech"]) == 2
    assert capsys.readouterr().err == "descant: ZeroDivisionError: division by zero (--debug shows where)\n"


# ---------------------------------------------------------------- chat


def talk(monkeypatch: pytest.MonkeyPatch, *lines: str, options: str = "") -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    monkeypatch.setenv("PATH", "")  # no player
    return run(["chat", *options.split()])


def test_a_talk_remembers_and_saves(omni: StubOmni, monkeypatch: pytest.MonkeyPatch) -> None:
    assert talk(monkeypatch, "Hello", "And then?", "/save kept", "/quit", "never asked") == 0
    assert len(omni.calls) == 2
    second = omni.calls[1][0]
    assert [m.role for m in second] == ["user", "assistant", "user"] and second[1].content == (Text(omni.text),)
    saved = json.loads(Path("kept/talk.json").read_text())
    assert [t["role"] for t in saved] == ["user", "assistant"] * 2
    assert sorted(p.name for p in Path("talk").iterdir()) == ["answer-1.wav", "answer-2.wav"]


def test_a_saved_talk_can_be_traced(omni: StubOmni, monkeypatch: pytest.MonkeyPatch) -> None:
    put("a.png")
    assert talk(monkeypatch, "/image a.png", "What?", "/save kept") == 0
    assert run(["trace", "nano", "--messages", "kept/talk.json", "--out", "t.safetensors"]) == 0
    assert omni.calls[-1][0][0].content == (Image(str(Path("a.png").resolve())), Text("What?"))


def test_media_go_with_the_next_question_only(omni: StubOmni, monkeypatch: pytest.MonkeyPatch) -> None:
    put("a.png")
    put("q.wav")
    assert talk(monkeypatch, "/image a.png", "/audio q.wav", "", "Thanks") == 0
    assert omni.calls[0][0][-1].content == (Image("a.png"), Audio("q.wav"))
    assert omni.calls[1][0][-1].content == (Text("Thanks"),)


def test_the_voice_can_be_changed(omni: StubOmni, monkeypatch: pytest.MonkeyPatch) -> None:
    assert talk(monkeypatch, "/voice Rex", "Hello", options="--voice Nova") == 0
    assert omni.calls[0][1]["voice"] == "Rex"


def test_what_goes_wrong_is_said_and_the_talk_goes_on(
    omni: StubOmni, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ("/image none.png", "/voice Bob", "/sing", "", "Hello", "/new", "Again")
    assert talk(monkeypatch, *lines, options="--no-speech") == 0
    err = capsys.readouterr().err
    assert all(part in err for part in ("no file none.png", "'Bob'", "no command /sing"))
    assert [len(call[0]) for call in omni.calls] == [1, 1] and not Path("talk").exists()


def test_an_interrupt_stops_the_answer_and_not_the_talk(omni: StubOmni, monkeypatch: pytest.MonkeyPatch) -> None:
    stops = iter([True, False])
    good, cancelled = omni.events, list[StubSession]()

    def events(*, speech: bool) -> Iterator[Event]:
        made = good(speech=speech)
        yield next(made)
        if next(stops):
            raise KeyboardInterrupt
        yield from made

    monkeypatch.setattr(omni, "events", events)
    monkeypatch.setattr(StubSession, "cancel", lambda self: cancelled.append(self))
    assert talk(monkeypatch, "Hello", "Again") == 0
    assert len(omni.calls) == 2 and len(cancelled) == 1
