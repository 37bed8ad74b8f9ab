"""The vision encoder against the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from descant.model import vision
from tests.parity.reference import BROKEN, PROMISE, TOLERANCE, Pair, patches, relative, thinker_pair

CASES = {
    "one window": [(1, 8, 8)],
    "smallest": [(1, 2, 2)],
    "odd image": [(1, 14, 22)],
    "wide image": [(1, 4, 50)],
    "several images": [(1, 6, 10), (1, 14, 22), (1, 2, 2), (1, 20, 4), (1, 8, 8)],
    "silent video": [(3, 10, 12)],
    "images and videos": [(1, 6, 10), (4, 4, 4), (1, 18, 16), (2, 12, 10)],
}


@pytest.fixture(scope="module")
def pair() -> Pair:
    return thinker_pair()


def difference(pair: Pair, grids: list[tuple[int, int, int]]) -> float:
    rows = torch.cat([patches(grid, seed=i) for i, grid in enumerate(grids)])
    with torch.no_grad():
        expected = pair.reference.model.visual(rows, grid_thw=torch.tensor(grids)).pooler_output
        return relative(pair.ours.vision(rows, grids), expected)


@pytest.mark.parametrize("case", CASES)
def test_parity(pair: Pair, case: str, record: Callable[[str, str, float], None]) -> None:
    worst = difference(pair, CASES[case])
    record("vision encoder", case, worst)
    assert worst < TOLERANCE


_segment_ids, _patch_positions, _axial = vision.segment_ids, vision.patch_positions, vision.axial
BREAKS = {
    "no windows": ("segment_ids", lambda grids, side, merge: _segment_ids(grids, None, merge)),
    "full layers windowed": ("segment_ids", lambda grids, side, merge: _segment_ids(grids, 4, merge)),
    "windows of 3 units": ("window_units", lambda cfg: 3),
    "rows and columns swapped": ("patch_positions", lambda grids, merge: _patch_positions(grids, merge).flip(1)),
    "raster order": ("patch_positions", lambda grids, merge: _patch_positions(grids, 1)),
    "theta": ("axial", lambda positions, dim, theta: _axial(positions, dim, theta / 10)),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_formula_is_seen(pair: Pair, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attribute, broken = BREAKS[name]
    monkeypatch.setattr(vision, attribute, broken)
    assert difference(pair, [(1, 14, 22)]) > BROKEN


def test_attention_across_time_is_seen(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        vision, "segment_ids", lambda grids, side, merge: torch.zeros_like(_segment_ids(grids, side, merge))
    )
    assert difference(pair, [(2, 8, 8)]) > BROKEN


def test_the_wrong_full_layers_are_seen(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair.ours.vision, "cfg", replace(pair.ours.vision.cfg, fullatt_block_indexes=(0, 2)))
    assert difference(pair, [(1, 14, 22)]) > BROKEN


def test_the_wrong_gelu_is_seen(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair.ours.vision.merger.mlp[1], "approximate", "tanh")
    assert difference(pair, [(1, 8, 8)]) > PROMISE
