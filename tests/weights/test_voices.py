"""Voices: the official pickle is read weights-only, once; anything else in it is refused and never runs."""

from __future__ import annotations

import contextlib
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from descant.errors import WeightsError
from descant.types import Voice
from descant.weights import voices as module
from descant.weights.voices import check_voices, read_voices, write_voices
from tests import tiny


def same(a: dict[str, Voice], b: dict[str, Voice]) -> bool:
    return list(a) == list(b) and all(
        a[n].bos_token == b[n].bos_token and a[n].vector.equal(b[n].vector) and a[n].ref_mel.equal(b[n].ref_mel)
        for n in a
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.save(tiny.speakers(), tmp_path / "spk_dict.pt")
    return tmp_path


def test_official_pickle(folder: Path) -> None:
    found = read_voices(folder)
    assert list(found) == ["Chelsie", "Ethan"]  # the reference's default first, whatever the file's order
    assert same(found, tiny.voices())
    assert found["Chelsie"].vector.shape == (tiny.ENC_EMB,)
    assert found["Ethan"].ref_mel.shape == (tiny.REF_FRAMES + 4, tiny.MELS)


def test_the_pickle_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read_voices(folder)
    assert (folder / "voices.safetensors").is_file()
    monkeypatch.setattr(module.torch, "load", lambda *a, **k: pytest.fail("unpickled a second time"))
    assert same(read_voices(folder), first)
    (folder / "spk_dict.pt").unlink()
    assert same(read_voices(folder), first)


def test_a_new_pickle_replaces_the_old_reading(folder: Path) -> None:
    read_voices(folder)
    torch.save(tiny.speakers(seed=1), folder / "spk_dict.pt")
    assert same(read_voices(folder), tiny.voices(seed=1))
    assert same(read_voices(folder), tiny.voices(seed=1))


def test_a_folder_that_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(module.tempfile, "TemporaryDirectory", refuse)
    assert same(read_voices(folder), tiny.voices())
    assert not (folder / "voices.safetensors").exists()


def test_half_precision_becomes_float32(folder: Path) -> None:
    rows = tiny.speakers()
    rows["Ethan"]["cond"] = rows["Ethan"]["cond"].to(torch.bfloat16)
    torch.save(rows, folder / "spk_dict.pt")
    assert read_voices(folder)["Ethan"].vector.dtype == torch.float32


def test_write_and_read(tmp_path: Path) -> None:
    odd = {
        "nova.v2": Voice("nova.v2", 7, torch.randn(4), torch.randn(9, 3)),
        "Åsa": Voice("Åsa", 8, torch.ones(4), torch.ones(2, 3)),
    }
    write_voices(odd, tmp_path)
    assert same(read_voices(tmp_path), odd)
    assert read_voices(tmp_path)["Åsa"].name == "Åsa"
    assert [p.name for p in tmp_path.iterdir()] == ["voices.safetensors"]  # nothing half-written is left


def test_no_voices(tmp_path: Path) -> None:
    assert read_voices(tmp_path) == {}


class Bomb:
    """A pickle that would run a command."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("inside", ["whole", "value", "raw"])
def test_a_pickle_with_code_does_not_run(inside: str, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    path = tmp_path / "spk_dict.pt"
    rows: Any = {"Ethan": {**tiny.speakers()["Ethan"], "bos_token": Bomb(mark)}}
    if inside == "raw":
        path.write_bytes(pickle.dumps(Bomb(mark)))
    else:
        torch.save(Bomb(mark) if inside == "whole" else rows, path)
    with pytest.raises(WeightsError, match="nothing else is ever unpickled"):
        read_voices(tmp_path)
    assert not mark.exists()
    with contextlib.suppress(RuntimeError):  # torch finds out afterwards that the raw one is no torch file
        torch.load(path, weights_only=False)  # the bomb is live: only the careful reader kept it from going off
    assert mark.exists()


def broken(change: Any) -> dict[str, Any]:
    rows = tiny.speakers()
    change(rows["Ethan"])
    return rows


@pytest.mark.parametrize(
    "data, words",
    [
        ({}, "dictionary of voices"),
        ([1, 2], "dictionary of voices"),
        ({"Ethan": 3}, "expected exactly"),
        ({7: tiny.speakers()["Ethan"]}, "expected a printable name"),
        (broken(lambda r: r.pop("cond")), "expected exactly"),
        (broken(lambda r: r.update(extra=1)), "expected exactly"),
        (broken(lambda r: r.update(bos_token="1")), "bos_token"),
        (broken(lambda r: r.update(bos_token=True)), "bos_token"),
        (broken(lambda r: r.update(bos_token=-1)), "bos_token"),
        (broken(lambda r: r.update(cond=torch.zeros(12))), "expected \\(1, D\\)"),
        (broken(lambda r: r.update(cond=torch.zeros(1, 12, dtype=torch.int64))), "no float tensor"),
        (broken(lambda r: r.update(cond=[0.0])), "no float tensor"),
        (broken(lambda r: r.update(ref_mel=torch.zeros(2, 5, 20))), "expected \\(1, T, M\\)"),
        (broken(lambda r: r.update(ref_mel=torch.zeros(1, 0, 20))), "expected \\(1, T, M\\)"),
        (broken(lambda r: r.update(ref_mel=torch.full((1, 4, 20), float("nan")))), "NaN"),
    ],
)
def test_schema(data: object, words: str, tmp_path: Path) -> None:
    torch.save(data, tmp_path / "spk_dict.pt")
    with pytest.raises(WeightsError, match=words):
        read_voices(tmp_path)
    assert not (tmp_path / "voices.safetensors").exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04 cut"])
def test_files_that_are_no_pickle(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "spk_dict.pt").write_bytes(content)
    with pytest.raises(WeightsError, match="spk_dict.pt"):
        read_voices(tmp_path)


def test_damaged_safetensors(folder: Path) -> None:
    read_voices(folder)
    path = folder / "voices.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(WeightsError, match="voices.safetensors cannot be read"):
        read_voices(folder)


def test_voices_must_fit_the_model() -> None:
    config, voice = tiny.descant_config(), tiny.voices()["Ethan"]
    check_voices({"Ethan": voice}, config)
    for bad, words in (
        (Voice("X", tiny.VOCAB, voice.vector, voice.ref_mel), "bos token 320"),
        (Voice("X", 1, torch.zeros(5), voice.ref_mel), "a vector of 5"),
        (Voice("X", 1, voice.vector, torch.zeros(4, 80)), "80 mel bins"),
    ):
        with pytest.raises(WeightsError, match=words):
            check_voices({"X": bad}, config)
