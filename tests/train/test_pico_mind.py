"""pico learns to see and to hear, from nothing, inside this test; and only because the answers belong to the media."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from descant.model.thinker import Thinker
from descant.train.examples import Example, ExampleEncoder, greedy_replies
from descant.train.loop import StageContext, load_module
from descant.train.nano import domain, mixture
from descant.train.recipe import Recipe
from descant.train.tasks.setting import encoder_of, new_thinker
from descant.types import Audio, Image, Part

STAGES = ("seeing", "listening", "mind", "mind-shuffled")
CHANCE = {"colour": 1 / 8, "sound": 1 / 10}
ASKED = 60  # questions of each kind
pytestmark = pytest.mark.slow


def right(
    recipe: Recipe, runs: Path, stage: str, task: str, change: Callable[[Part], Part] = lambda part: part
) -> float:
    """The share of right answers to held-out questions, each part of which passes through ``change`` first."""
    context = StageContext(recipe, recipe.stage(stage), runs)
    thinker: Thinker = new_thinker(context)
    thinker.load_state_dict(load_module(runs / stage, "thinker"))
    desk: ExampleEncoder = encoder_of(context)
    source = mixture.Source("test", distorted=False)
    examples = [mixture.make_example(source, task, random.Random(f"pico/{n}")) for n in range(ASKED)]
    shown = [_changed(example, change) for example in examples]
    said = greedy_replies(thinker.eval(), desk, shown, max_tokens=40)
    return sum(domain.correct(task, text, e.reply) for text, e in zip(said, examples, strict=True)) / ASKED


def _changed(example: Example, change: Callable[[Part], Part]) -> Example:
    content = tuple(change(part) for part in example.question.content)
    return replace(example, question=replace(example.question, content=content))


def emptied(part: Part) -> Part:
    """The medium with nothing in it."""
    if isinstance(part, Audio) and isinstance(part.source, np.ndarray):
        return replace(part, source=np.zeros_like(part.source))
    if isinstance(part, Image) and isinstance(part.source, np.ndarray):
        return replace(part, source=np.full_like(part.source, 128))
    return part


def test_pico_is_small(recipe: Recipe) -> None:
    thinker = new_thinker(StageContext(recipe, recipe.stage("mind"), Path()))
    assert sum(p.numel() for p in thinker.parameters()) < 500_000


@pytest.mark.timeout(900)
@pytest.mark.parametrize("task", ["colour", "sound"])
def test_it_answers_about_what_training_never_showed(recipe: Recipe, runs: Path, task: str) -> None:
    """Colours of (colour, shape) pairs that were held out; sounds of fresh random states."""
    assert right(recipe, runs, "mind", task) >= 0.7


@pytest.mark.parametrize("task", ["colour", "sound"])
def test_without_the_medium_it_falls_to_chance(recipe: Recipe, runs: Path, task: str) -> None:
    assert right(recipe, runs, "mind", task, emptied) <= CHANCE[task] + 0.15


@pytest.mark.parametrize("task", ["colour", "sound"])
def test_with_shuffled_answers_it_stays_at_chance(recipe: Recipe, runs: Path, task: str) -> None:
    assert right(recipe, runs, "mind-shuffled", task) <= CHANCE[task] + 0.15
