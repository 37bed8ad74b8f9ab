# ruff: noqa: F811 - a fixture of another file
"""The command line against careless hands: files that must not be lost, full disks, pipes, limits, and what is told."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from descant.cli import common, line_editor
from descant.cli.errors import run
from descant.cli.player import Player, WavWriter
from descant.cli.shell import ChatShell
from descant.errors import MESSAGE_CHARACTERS, DescantError, OptionError, readable
from descant.files import check_output, open_output
from descant.pcm import HEADER_BYTES
from descant.types import Audio, Image, Text, Video
from tests.stub import StubOmni
from tests.test_cli import omni, put, talk  # noqa: F401 - a fixture

ROOT = Path(__file__).resolve().parent.parent
LOUD = np.full(2400, 0.5, np.float32)


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard input is a terminal."""
    stdin = io.StringIO()
    stdin.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdin", stdin)


def piped(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


# ---------------------------------------------------------------- what a person has is not lost

OVERWRITES = {
    "events over a question": "ask --audio q.wav --no-speech --events q.wav",
    "sound over a question": "ask --audio q.wav --out q.wav",
    "the default over a question": "ask --audio answer.wav",
    "by another name": "ask --audio q.wav --out ./sub/../q.wav",
    "by a hard link": "ask --audio q.wav --out hard.wav",
    "by a link": "ask Hello --out link.wav",
    "a device": "ask Hello --out /dev/full",
    "events over sound": "ask Hello --out x.wav --events ./x.wav",
    "a trace over its conversation": "trace nano --messages talk.json --out talk.json",
    "a trace over a link": "trace nano --messages talk.json --out link.wav",
}


@pytest.mark.parametrize("name", OVERWRITES)
def test_nothing_that_is_there_is_written_over(
    name: str,
    omni: StubOmni,
    typed: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("sub").mkdir()
    put("q.wav", "answer.wav")
    Path("talk.json").write_text('[{"role": "user", "content": "hi"}]')
    os.link("q.wav", "hard.wav")
    Path("link.wav").symlink_to("target.wav")
    before = {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    assert run(OVERWRITES[name].split()) == 2
    assert "cannot write" in capsys.readouterr().err
    assert not omni.calls and before == {path: path.read_bytes() for path in before}


def test_a_folder_without_rights_is_found_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(OptionError, match="cannot be written to"):
        check_output(tmp_path / "answer.wav", "--out")


def test_dev_null_and_pipes_are_written_to(omni: StubOmni, typed: None, tmp_path: Path) -> None:
    assert run(["ask", "Hello", "--out", "/dev/null"]) == 0
    os.mkfifo("pipe")
    with pytest.raises(OptionError, match="nobody reads this pipe"):
        open_output(Path("pipe"), "--out")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert run(["say", "Hello", "--out", "pipe"]) == 0
    heard = os.read(reader, 1 << 20)
    os.close(reader)
    assert len(heard) == HEADER_BYTES + 5 * 2 * 2400


def test_sound_to_stdout_is_a_wav_and_the_text_goes_beside_it(tmp_path: Path) -> None:
    script = (
        "from tests.stub import StubOmni; from descant.cli import common\n"
        "common.open_model = lambda name, **options: StubOmni()\n"
        "import sys; from descant.cli import main; sys.exit(main(['ask', 'Hello', '--out', '-']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, check=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.stdout[:4] == b"RIFF" and len(done.stdout) == HEADER_BYTES + 5 * 2 * 2400
    assert b"Seven plus five is twelve." in done.stderr


class Full:
    """A disk that takes so many bytes and no more."""

    def __init__(self, real: io.FileIO, room: int):
        self.real, self.room = real, room

    def write(self, data: object) -> int:
        self.room -= len(memoryview(data))  # type: ignore[arg-type]
        if self.room < 0:
            raise OSError(28, "No space left on device")
        return self.real.write(data)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)


def test_a_full_disk_is_named_and_the_text_goes_on(
    omni: StubOmni,
    typed: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real = WavWriter.__init__

    def small(self: WavWriter, path: Path, rate: int) -> None:
        real(self, path, rate)
        self._file = Full(self._file, 6000)  # type: ignore[assignment,arg-type]

    monkeypatch.setattr(WavWriter, "__init__", small)
    assert run(["ask", "Hello", "--out", "a.wav"]) == 2
    out, err = capsys.readouterr()
    assert out == "Seven plus five is twelve.\n" and "cannot write a.wav any more: No space left" in err


def test_a_full_disk_behind_stdout_is_one_line() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "descant", "voices"]
        done = subprocess.run(command, stdout=full, stderr=-1, cwd=ROOT, check=False)
    assert done.returncode == 2 and b"No space left on device" in done.stderr


# ---------------------------------------------------------------- pipes


def test_a_question_from_a_pipe(omni: StubOmni, monkeypatch: pytest.MonkeyPatch) -> None:
    for words, asked in ((["ask"], "2+2"), (["ask", "-"], "2+2"), (["ask", "two", "words"], "two words")):
        piped(monkeypatch, b"2+2\n")
        assert run(words) == 0
        assert omni.calls[-1][0][0].content == (Text(asked),)
    piped(monkeypatch, b"Good morning.\n")
    assert run(["say", "-", "--out", "s.wav"]) == 0 and omni.calls[-1][0] == "Good morning."
    piped(monkeypatch, b"RIFF\0\0\0\0WAVEdata")
    assert run(["transcribe", "-"]) == 0 and omni.calls[-1][0] == Audio(b"RIFF\0\0\0\0WAVEdata")
    piped(monkeypatch, b"\xff\xfe")
    assert run(["ask", "-"]) == 2


def test_a_dash_on_a_terminal_is_explained(
    omni: StubOmni,
    typed: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["say", "-"]) == 2 and "nothing is piped there" in capsys.readouterr().err


def test_several_recordings_are_written_down(
    omni: StubOmni,
    typed: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put("a.wav", "b.wav")
    assert run(["transcribe", "a.wav", "b.wav"]) == 0
    assert capsys.readouterr().out == "a.wav: what was said\nb.wav: what was said\n"


# ---------------------------------------------------------------- what is told


@pytest.mark.parametrize("words", [["ask", "Hello"], ["say", "Hello"], ["ask", "Hello", "--no-speech"]])
def test_cuts_are_told(
    words: list[str],
    omni: StubOmni,
    typed: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    omni.cut = True
    assert run([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    assert "cut: the text reached 5 tokens" in err and ("cut: the speech" in err) == ("--no-speech" not in words)
    record = json.loads(out)
    assert record["reason"] == "length" and record["usage"]["text_cut"]
    put("q.wav")
    assert run(["transcribe", "q.wav", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"file": "q.wav", "text": "what was said", "reason": "length"} and "cut:" in err


def test_an_output_without_unicode_gets_a_replacement(tmp_path: Path) -> None:
    script = (
        "from tests.stub import StubOmni; from descant.cli import common\n"
        "common.open_model = lambda name, **options: StubOmni(text='Sieben plus fünf: \\u263a')\n"
        "import sys; from descant.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    environment = {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    for words, wanted in (
        (["ask", "ü", "--no-speech"], b"Sieben plus f?nf: ?\n"),
        (["ask", "ü", "--no-speech", "--events", "-"], b"\\u263a"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", script, *words], cwd=tmp_path, capture_output=True, check=False, env=environment
        )
        assert done.returncode == 0 and wanted in done.stdout, done.stderr


def test_closed_streams_are_no_crash(tmp_path: Path) -> None:
    command = f"cd {tmp_path} && PYTHONPATH={ROOT} {sys.executable} -m descant ask --image none.png"
    done = subprocess.run(["sh", "-c", f"{command} 2>&-"], capture_output=True, check=False)
    assert done.returncode == 2 and done.stdout == b""
    done = subprocess.run(["sh", "-c", f"{command} >&-"], capture_output=True, check=False)
    assert done.returncode == 2 and b"none.png" in done.stderr


def test_an_interrupt_is_one_line_at_any_moment(tmp_path: Path) -> None:
    """Also while modules are read, and when it comes again and again."""
    script = (
        "import sys\n"
        "class Stop:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Stop())\n"
        "import os, signal, atexit\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
        "from descant.__main__ import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 130 and done.stderr.split() == [b"stopped"]


def test_messages_fit_a_screen_and_cannot_steer_it() -> None:
    text = str(DescantError("a\x1b]0;PWNED\x07b\nc" + "x" * 10**6 + "the end"))
    assert text.isprintable() and len(text) < MESSAGE_CHARACTERS + 10 and text.endswith("the end")
    assert readable("fine") == "fine"


def test_a_voice_is_looked_up_before_the_weights_are_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: None, tmp_path: Path
) -> None:
    monkeypatch.setattr(common, "open_model", lambda *_, **__: pytest.fail("the model was loaded"))
    monkeypatch.chdir(tmp_path)
    for words in ("ask hi --voice bob", "say hi --voice bob", "chat --voice bob"):
        assert run(words.split()) == 2 and "unknown voice 'bob'; nano has" in capsys.readouterr().err


def test_a_player_that_dies_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "aplay"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    player = Player("aplay", 24000)
    player.write(LOUD)
    player.finish(None)
    assert player.died


def test_asking_to_hear_without_a_player_is_refused(
    omni: StubOmni,
    typed: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", "")
    assert run(["ask", "Hello", "--play"]) == 2 and "no player is installed" in capsys.readouterr().err
    assert not common.is_playing(None)


# ---------------------------------------------------------------- chat


def test_words_that_people_type_to_leave(omni: StubOmni, monkeypatch: pytest.MonkeyPatch) -> None:
    for word in ("quit", "exit", "/exit", "/quit"):
        assert talk(monkeypatch, word, "never asked") == 0
    assert talk(monkeypatch, "help", "/help") == 0
    assert not omni.calls


def test_earlier_answers_and_talks_stay(omni: StubOmni, monkeypatch: pytest.MonkeyPatch) -> None:
    assert talk(monkeypatch, "Hello", "/save", "/save") == 0
    assert talk(monkeypatch, "Hello", "/save") == 0
    names = ["answer-1.wav", "answer-2.wav", "talk-2.json", "talk-3.json", "talk.json"]
    assert sorted(path.name for path in Path("talk").iterdir()) == names


def test_files_as_they_are_dropped_on_a_terminal(
    omni: StubOmni,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    put("a b.png", "c.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    lines = ["/image 'a b.png'", "/image a\\ b.png", '/image "a b.png"', "/image ~/c.png", "/image a b.png"]
    lines.append(f"/image {(tmp_path / 'a b.png').as_uri()}")
    assert talk(monkeypatch, *lines, "", options="--no-speech") == 0
    assert [Path(str(part.source)).name for part in omni.calls[0][0][-1].content] == ["a b.png"] * 3 + ["c.png"] + [
        "a b.png"
    ] * 2


def test_what_chat_says_of_voices_and_names(
    omni: StubOmni,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = ["/voice", "/voice Rex", "/image", "/save a\0b", "Hello"]
    assert talk(monkeypatch, *lines, options="--no-speech") == 0
    err = capsys.readouterr().err
    assert "Nova, Rex" in err and "answers are text only here" in err and "name a file: /image FILE" in err
    assert "speaks from now on" not in err and len(omni.calls) == 1


def test_no_prompt_off_a_terminal_and_no_endless_line(
    omni: StubOmni,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert talk(monkeypatch, "Hello", options="--no-speech") == 0
    assert capsys.readouterr().out == "Seven plus five is twelve.\n"
    assert talk(monkeypatch, "x" * (line_editor.MAX_LINE_CHARACTERS + 5), options="--no-speech") == 2
    monkeypatch.setattr(sys, "stdin", None)
    assert run(["chat", "--no-speech"]) == 0


def test_completion_of_commands_voices_and_files(omni: StubOmni, tmp_path: Path) -> None:
    put("three.png", "two.wav")
    Path("tree").mkdir()
    shell = ChatShell(omni, None, False, None, {"speech": True}, omni.session())  # type: ignore[arg-type]
    assert list(line_editor.completions(shell, "/im")) == ["/image "]
    assert list(line_editor.completions(shell, "/voice R")) == ["Rex"]
    assert list(line_editor.completions(shell, "/image t")) == ["three.png", "tree/", "two.wav"]
    assert list(line_editor.completions(shell, f"/image {tmp_path}/th")) == [f"{tmp_path}/three.png"]
    assert list(line_editor.completions(shell, "/image none/x")) == list(line_editor.completions(shell, "What")) == []


def test_a_saved_talk_keeps_what_was_attached(
    omni: StubOmni,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put("a.png", "b.mp4")
    assert talk(monkeypatch, "/image a.png", "/video b.mp4", "What?", "/save kept", options="--no-speech") == 0
    assert run(["trace", "nano", "--messages", "kept/talk.json", "--out", "t.safetensors"]) == 0
    image, video, text = omni.calls[-1][0][0].content
    assert isinstance(image, Image) and isinstance(video, Video) and video.use_audio is None and text == Text("What?")


def test_small_things(omni: StubOmni, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-V"]) == 0 and capsys.readouterr().out.startswith("descant ")
    assert run(["inspect"]) == 0 and "parameters" in capsys.readouterr().out
    assert run(["voices", "--json"]) == 0 and json.loads(capsys.readouterr().out)
    with wave.open(str(WavWriter("x.wav", 24000).path)) as file:
        assert file.getnframes() == 0
