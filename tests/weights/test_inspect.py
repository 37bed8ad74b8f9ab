"""What a model is made of, from config.json alone and from files; the official totals to the last parameter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from descant.cli.inspect import draw_model, inspect_folder, parts_table, to_json
from descant.errors import ConfigError, WeightsError
from descant.weights.shards import SINGLE
from tests import tiny
from tests.weights.conftest import Copy

DATA = Path(__file__).parent.parent / "data"
# parameters of the official models; the text body includes the embedding table
PARTS = {
    "7b": {
        "thinker.audio": 639_647_232, "thinker.vision": 676_550_144, "thinker.decoder": 7_070_619_136,
        "thinker.lm_head": 544_997_376, "talker.proj": 3_212_160, "talker.decoder": 1_340_578_688,
        "talker.codec_head": 7_569_408, "token2wav.dit": 333_607_792, "token2wav.vocoder": 115_443_504,
    },
    "3b": {
        "thinker.audio": 637_676_544, "thinker.vision": 668_684_288, "thinker.decoder": 3_085_938_688,
        "thinker.lm_head": 311_164_928, "talker.proj": 1_835_904, "talker.decoder": 375_199_616,
        "talker.codec_head": 7_569_408, "token2wav.dit": 333_607_792, "token2wav.vocoder": 115_443_504,
    },
}  # fmt: skip
TOTALS = {"7b": 10_732_225_440, "3b": 5_537_120_672}


@pytest.mark.parametrize("size", PARTS)
def test_official_totals_from_config_alone(size: str) -> None:
    found = inspect_folder(DATA / size)
    assert {part.name: part.parameters for part in found.parts} == PARTS[size]
    assert found.parameters == TOTALS[size]
    assert f"{TOTALS[size]:,}" in parts_table(found)
    assert not found.stored


def test_official_bytes() -> None:
    """bfloat16, and float32 for the sound: the size of the five official shards without their headers."""
    assert inspect_folder(DATA / "7b").nbytes == 22_362_553_472


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_come_from_the_files(dtype: torch.dtype, tmp_path: Path) -> None:
    tiny.write_descant(tmp_path, dtype=dtype)
    found = inspect_folder(tmp_path)
    size = (tmp_path / SINGLE).stat().st_size
    header = int.from_bytes((tmp_path / SINGLE).read_bytes()[:8], "little") + 8
    assert found.stored and found.nbytes == size - header
    assert {part.dtype for part in found.parts} == {str(dtype).removeprefix("torch.")}


def test_shards_of_transformers(seven: Path) -> None:
    found = inspect_folder(seven)
    assert found.stored and {part.dtype for part in found.parts} == {"float32"}


def test_json(seven: Path) -> None:
    found = inspect_folder(seven)
    data = json.loads(json.dumps(to_json(found)))
    assert data["parameters"] == found.parameters == sum(part["parameters"] for part in data["parts"])
    assert data["bytes"] == found.nbytes
    assert [part["name"] for part in data["parts"]] == list(PARTS["7b"])


def test_picture() -> None:
    picture = draw_model(inspect_folder(DATA / "7b"))
    for words in ("audio encoder", "vision encoder", "28 layers x 3584, 28 heads, 4 kv", "24 layers x 896, 12 heads",
                  "50 codes a second", "22 layers x 1024, blocks of 240 ms", "100 mel frames a second", "BigVGAN",
                  "24000 samples a second"):  # fmt: skip
        assert words in picture
    assert max(map(len, picture.splitlines())) <= 110
    boxes = [picture.index(word) for word in ("audio encoder", "vision encoder", "Thinker", "Talker", "DiT", "BigVGAN")]
    assert boxes == sorted(boxes)
    assert "14 heads" in draw_model(inspect_folder(DATA / "3b"))


def test_picture_of_other_models(ours: Path, copy: Copy) -> None:
    assert "Vocos" in draw_model(inspect_folder(ours)) and "BigVGAN" not in draw_model(inspect_folder(ours))
    folder = copy(ours)
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**data, "enable_audio_output": False}))
    found = inspect_folder(folder)
    assert "answers in text only" in draw_model(found) and "DiT" not in draw_model(found)
    assert {part.name.split(".")[0] for part in found.parts} == {"thinker"}


def test_tied_head_is_counted_once(three_tied: Path) -> None:
    assert "thinker.lm_head" not in {part.name for part in inspect_folder(three_tied).parts}


def test_unusable_folders(ours: Path, copy: Copy, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="config.json"):
        inspect_folder(tmp_path)
    folder = copy(ours)
    data = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(data[:-4])
    with pytest.raises(WeightsError, match="truncated"):
        inspect_folder(folder)
    (folder / SINGLE).unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "torch_dtype": "int3"}))
    with pytest.raises(ConfigError, match="torch_dtype"):
        inspect_folder(folder)
