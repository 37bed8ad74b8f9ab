"""The bench of one card: its shapes are the official ones, and every row measures, on any device and in small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from descant.bench import OfficialShape, card
from descant.bench.card import CardScale, measure_card
from descant.bench.card_lines import CardLine, card_row
from descant.bench.official import OFFICIAL_CODES, official_config, random_on
from descant.bench.shapes import codec, decoder, ears, omni
from descant.cli import bench
from descant.errors import OptionError
from descant.weights.configfile import read_config

DATA = Path(__file__).parent / "data"
CPU = torch.device("cpu")
SMALL = omni(decoder(64, 2, 4, 96, 151936), decoder(64, 2, 4, 96, 8448), codec(64, 2, 64, channels=16), ears(64, 1, 64))
FEW = CardScale(2, 14, 1, (2,), 2, 0.3, (0.2,), 0.5, 56, (1.0,), 1 << 20, (1, 2), 2)


@pytest.mark.parametrize("shape", ["7b", "3b"])
def test_the_shapes_are_the_official_ones(shape: OfficialShape) -> None:
    assert official_config(shape, code_rows=OFFICIAL_CODES) == read_config(DATA / shape)


def test_weights_are_drawn_where_they_lie() -> None:
    parts = random_on(SMALL, CPU, torch.bfloat16)
    kinds = {name: {tensor.dtype for tensor in part.state_dict().values()} for name, part in parts.named().items()}
    assert kinds == {"thinker": {torch.bfloat16}, "talker": {torch.bfloat16}, "token2wav": {torch.float32}}
    assert all(tensor.isfinite().all() and not tensor.is_meta for tensor in parts.tensors().values())
    again = random_on(SMALL, CPU, torch.bfloat16)
    assert all(torch.equal(a, b) for a, b in zip(parts.tensors().values(), again.tensors().values(), strict=True))


def test_every_row_measures() -> None:
    said = list[str]()
    lines = measure_card(SMALL, CPU, FEW, say=said.append)
    named = {line.what: line for line in lines}
    assert len(named) == len(lines) > 30
    for what in ("first sound alone, low", "2 at once: first sound, p95", "live turn of 0.2 s: first sound",
                 "a picture of 56 x 56: first text", "Talker step, 2 together", "window of 8 voices, tf32",
                 "Thinker step, by torch's own kernels",
                 "2 speaking for 0.3 s: under-runs"):  # fmt: skip
        assert named[what].value >= 0
    assert sum(line.value == 0 for line in lines) <= 7  # under-runs, faults, and memory, which a CPU does not count
    assert any(what.startswith("first sound alone, low") and "goal" in what for what in said)


def test_a_line_says_its_goal() -> None:
    told = card_row(CardLine("first text", 31.4, "ms", "<= 25 (30)"))
    assert told.split() == "first text 31.4 ms goal <= 25 (30)".split()


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(card, "official_lines", lambda *given: [CardLine("first text", 1.0, "ms")])
    out = tmp_path / "card.json"
    bench.card_speed("7b", "cpu", None, out)
    assert "first text" in capsys.readouterr().out
    kept = json.loads(out.read_text())
    assert kept["device"] == "CPU" and kept["lines"][0]["what"] == "first text"
    for wrong in ({"shapes": "7b", "url": "http://x"}, {"device": "cuda"}, {"shapes": "3b", "device": "no such"}):
        with pytest.raises(OptionError):
            bench.bench(**wrong)
