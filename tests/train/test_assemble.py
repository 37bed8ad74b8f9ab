"""A recipe's finished stages become a model folder that loads, with cards made from the run's records."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import descant
from descant.errors import ConfigError, WeightsError
from descant.train.loop import StageContext, save_modules
from descant.train.recipe import Recipe, read_recipe
from descant.train.tasks.assemble import assemble
from descant.weights.checkpoint import load_checkpoint
from descant.weights.parts import Parts, build_parts

NANO = Path(__file__).parents[2] / "recipes" / "nano.yaml"


@pytest.fixture
def recipe() -> Recipe:
    return read_recipe(NANO)


@pytest.fixture
def parts(recipe: Recipe, tmp_path: Path) -> Parts:
    """Random weights where the stages that are assembled would have left theirs."""
    torch.manual_seed(0)
    built = build_parts(recipe.model)
    assert built.talker is not None and built.token2wav is not None
    modules = {"thinker": built.thinker, "talker": built.talker, "dit": built.token2wav.dit,
               "vocoder": built.token2wav.vocoder}  # fmt: skip
    stages = recipe.stage("assemble").options
    assert stages is not None
    for name, stage in stages["parts"].items():
        (tmp_path / stage).mkdir()
        save_modules(tmp_path / stage / "final.safetensors", {name: modules[name]})
        record = {"steps": 7, "seconds": 120.0, "metrics": {"loss": 0.5}}
        (tmp_path / stage / "final.json").write_text(json.dumps(record))
    save_file({"vector": torch.ones(64), "ref_mel": torch.zeros(48, 80)}, tmp_path / "dit" / "voice.safetensors")
    provenance = {"speech": {"generator": "flite"}, "spoken": [{"generator": "espeak-ng", "voices": ["a"]}]}
    for name, told in provenance.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "provenance.json").write_text(json.dumps(told))
    return built


def test_the_folder_loads_with_the_stages_weights(recipe: Recipe, parts: Parts, tmp_path: Path) -> None:
    assemble(StageContext(recipe, recipe.stage("assemble"), tmp_path))
    folder = tmp_path / "assemble" / "model"
    omni, loaded = descant.load(folder), load_checkpoint(folder).parts.tensors()
    assert all(torch.equal(t.half().float(), loaded[name]) for name, t in parts.tensors().items() if t.ndim > 1)
    assert omni.voices == ("Nova",) and omni.decoding.guidance == 0.0
    assert 15_000_000 <= sum(p.numel() for part in parts.named().values() for p in part.parameters()) <= 25_000_000
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 60_000_000


def test_the_cards_tell_what_the_run_recorded(recipe: Recipe, parts: Parts, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("By hand: nothing.\n")
    assemble(StageContext(recipe, recipe.stage("assemble"), tmp_path))
    model, data = ((tmp_path / "assemble" / "model" / name).read_text() for name in ("MODEL_CARD.md", "DATA_CARD.md"))
    assert "| polish | 7 | 2 | loss 0.5 |" in model and "CC0" in data
    assert "\nBy hand: nothing.\n" in model
    assert "Record of `speech`: generator flite." in data
    assert "Record of `spoken`: generator espeak-ng, voices a." in data


def test_a_stage_that_has_not_finished_is_named(recipe: Recipe, parts: Parts, tmp_path: Path) -> None:
    (tmp_path / "polish" / "final.safetensors").unlink()
    with pytest.raises(WeightsError, match="polish"):
        assemble(StageContext(recipe, recipe.stage("assemble"), tmp_path))


def test_parts_are_named_in_full(recipe: Recipe, parts: Parts, tmp_path: Path) -> None:
    options = {**(recipe.stage("assemble").options or {}), "parts": {"thinker": "polish"}}
    with pytest.raises(ConfigError, match="thinker, talker, dit, vocoder"):
        assemble(StageContext(recipe, replace(recipe.stage("assemble"), options=options), tmp_path))
