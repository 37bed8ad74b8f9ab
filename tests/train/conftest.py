"""pico, trained from nothing: a test module names its STAGES and gets the folder of the finished run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from descant.train.recipe import Recipe, read_recipe
from descant.train.stages import run_one


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return read_recipe(Path(__file__).parents[2] / "recipes" / "pico.yaml")


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a finished run of the module's STAGES."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    folder = tmp_path_factory.mktemp("pico")
    for name in request.module.STAGES:
        assert run_one(recipe, name, folder)
    yield folder
    torch.set_flush_denormal(False)  # other tests count on subnormal numbers
