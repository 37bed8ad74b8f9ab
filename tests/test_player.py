"""A WAV file that is whole at every moment, and a player that is fed while the answer is made."""

from __future__ import annotations

import stat
import wave
from pathlib import Path

import numpy as np
import pytest

from descant.cli.player import Player, WavWriter, find_player
from descant.errors import OptionError
from descant.pcm import ENDLESS_BYTES, HEADER_BYTES, to_pcm16, wav_header

RATE = 24000


def frames(path: Path) -> int:
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
        assert file.getnframes() * 2 == path.stat().st_size - HEADER_BYTES
        return file.getnframes()


def test_the_file_is_whole_after_every_write(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    writer = WavWriter(path, RATE)  # never closed, as when a process is killed
    assert frames(path) == 0
    for count in (1, 100, 2401):
        writer.write(np.zeros(count, np.float32))
        assert frames(path) == writer.samples
    assert writer.seconds == pytest.approx(2502 / RATE)


def test_samples_survive_and_loud_ones_are_clipped(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with WavWriter(path, RATE) as writer:
        writer.write(np.array([0.0, 0.5, -0.5, 1.0, -1.0, 7.0, -7.0], np.float32))
    with wave.open(str(path)) as file:
        got = np.frombuffer(file.readframes(99), "<i2")
    assert got.tolist() == [0, 16384, -16384, 32767, -32767, 32767, -32767]


def test_a_path_that_cannot_be_written_is_an_option_error(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="No such file or directory"):
        WavWriter(tmp_path / "none" / "a.wav", RATE)
    with pytest.raises(OptionError, match="cannot write"):
        WavWriter(tmp_path, RATE)


def install(folder: Path, name: str, body: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_no_player_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_player() is None


@pytest.mark.parametrize("name", ["aplay", "paplay", "ffplay"])
def test_a_piped_player_hears_everything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    install(tmp_path, name, f"/bin/cat > {tmp_path}/heard; echo $@ > {tmp_path}/args")
    monkeypatch.setenv("PATH", str(tmp_path))
    samples = np.linspace(-1, 1, 999, dtype=np.float32)
    assert find_player() == name
    played = Player(name, RATE)
    for piece in np.array_split(samples, 7):
        played.write(piece)
    played.finish(None)
    heard = (tmp_path / "heard").read_bytes()
    assert heard[-2 * len(samples) :] == to_pcm16(samples)
    if name == "ffplay":  # is told the format by a WAV header; the others by their arguments
        assert heard == wav_header(RATE, ENDLESS_BYTES) + to_pcm16(samples)
    else:
        assert str(RATE) in (tmp_path / "args").read_text() and len(heard) == 2 * len(samples)


def test_a_player_that_reads_files_gets_the_finished_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(tmp_path, "afplay", f"echo $1 > {tmp_path}/heard")
    monkeypatch.setenv("PATH", str(tmp_path))
    played = Player("afplay", RATE)
    played.write(np.zeros(3, np.float32))
    played.finish(tmp_path / "a.wav")
    assert (tmp_path / "heard").read_text().strip() == str(tmp_path / "a.wav")


def test_a_player_that_dies_does_not_stop_the_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(tmp_path, "aplay", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    played = Player("aplay", RATE)
    for _ in range(50):
        played.write(np.zeros(RATE, np.float32))
    played.finish(None)
