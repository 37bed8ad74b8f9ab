"""The recipe of nano: every stage takes steps on tiny data, in the recipe's order, and ends in a model that answers."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import descant
from descant.train import stages
from descant.train.examples import Example
from descant.train.loop import Run, StageContext, Task, save_modules
from descant.train.nano import domain, refusals, scenes, spoken, tones, wide, wording
from descant.train.nano.cards import data_card
from descant.train.nano.sounds import make_sound
from descant.train.recipe import Recipe, Stage, read_recipe
from descant.train.stages import find_task
from descant.train.tasks import hearing
from descant.train.tasks.setting import bank_of, examples_of

PATH = Path(__file__).parents[2] / "recipes" / "nano.yaml"
RECIPE = read_recipe(PATH)
SMALL = {  # options that make a stage's data small
    "spoken": {"train": 160, "test": 20}, "features": {"train": 300, "test": 20},
    "speech": {"teacher": "tones", "phrases": 8, "words": 8, "sentences": 8},
    "seeing": {"evaluated": 4}, "letters": {"evaluated": 4}, "codec": {"warm_steps": 1, "kmeans_latents": 2048},
}  # fmt: skip


def tiny(recipe: Recipe) -> Recipe:
    """The same stages with smaller ears, two steps of four examples each."""
    made = {}
    for name, stage in recipe.stages.items():
        options = {**(stage.options or {}), **SMALL.get(name, {})}
        if stage.task == "thinker":
            options["evaluated"] = 0
        if stage.task in ("codec", "dit", "vocoder"):
            options["crop_frames"] = 24
        made[name] = replace(stage, steps=min(stage.steps, 2), batch=min(stage.batch, 4), options=options or None)
    audio = replace(recipe.model.thinker.audio, encoder_layers=1, d_model=48, encoder_ffn_dim=64)
    thinker = replace(recipe.model.thinker, audio=audio)
    return replace(recipe, model=replace(recipe.model, thinker=thinker), stages=made)


def say(text: str, voice: str) -> np.ndarray:
    """A stand-in for the engines: a tone, longer with the text, at a pitch of the voice."""
    return make_sound("whistle", np.random.default_rng(len(text)), 0.5 + 0.02 * len(text))


def take_steps(recipe: Recipe, name: str, runs: Path) -> list[dict[str, float]]:
    """The stage's steps without its figures, which take long on a machine that tests."""
    stage = recipe.stage(name)
    task = find_task(stage.task)(StageContext(recipe, stage, runs))
    if not isinstance(task, Task):
        return []
    run = Run(task, stage, runs / name)
    steps = [run.train_step() for _ in range(stage.steps)]
    with torch.inference_mode():
        task.finish()
    save_modules(runs / name / "final.safetensors", task.modules)
    (runs / name / "final.json").write_text(json.dumps({"steps": run.step, "metrics": {}}))
    return steps


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("nano")
    package = folder / "model.bin"
    package.write_bytes(b"a stand-in for the file of the package")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spoken, "say_clip", say)
        patch.setattr(spoken, "SPOKEN_SHARES", dict.fromkeys(spoken.SPOKEN_SHARES, 1.0))  # few clips, all kinds
        patch.setattr(tones, "LETTER_S", 0.012)  # a quick speaker: there are 1,700 replies to say
        patch.setattr(hearing, "whisper_file", lambda: package)
        patch.setattr(hearing, "encoder_weights", lambda path, cfg: {})  # fresh weights: nothing to download
        yield folder


@pytest.mark.slow
def test_every_stage_learns_and_the_model_answers(runs: Path) -> None:
    recipe = tiny(RECIPE)
    torch.set_num_threads(1)
    for name in recipe.order():
        for step in take_steps(recipe, name, runs):
            assert np.isfinite(step["loss"]) and step["grad"] > 0, name
        assert (runs / name / "final.json").exists(), name
    check_the_bank(recipe, runs)
    check_the_model(recipe, runs)


def check_the_bank(recipe: Recipe, runs: Path) -> None:
    """Every task that a stage draws can be drawn, with a reply that the voice has learnt where the voice draws it."""
    for name in ("text", "joint", "talker", "speaking"):
        context = StageContext(recipe, recipe.stage(name), runs)
        shares = (context.stage.options or {})["shares"]
        source = examples_of(context, "train", wide=True)
        assert isinstance(source, wide.WideSource)
        for task in shares:
            if task not in ("phrase", "words", "reply", "sentence"):
                made = wide.make_wide(source, task, random.Random(1))
                assert isinstance(made, Example) and made.reply
    bank = bank_of(StageContext(recipe, recipe.stage("joint"), runs), "train")
    assert bank is not None
    assert {kind.partition(":")[0] for kind in bank.places} == set(spoken.HEARD_SHARES)


def check_the_model(recipe: Recipe, runs: Path) -> None:
    """The folder loads, says how it hears, and answers a sound by the very ears that were given."""
    folder = runs / "assemble" / "model"
    card = data_card(recipe, runs, {name: {} for name in recipe.stages})
    assert "Whisper" in card and "Permission is hereby granted" in card
    assert card == (folder / "DATA_CARD.md").read_text()
    omni = descant.load(folder)
    assert omni.checkpoint.config.thinker.audio == recipe.model.thinker.audio
    events = list(omni.chat([descant.user(descant.Audio(say("hello", ""), 16000))], seed=0, max_tokens=8, speech=False))
    assert events


def test_every_reply_can_be_said() -> None:
    """Whatever the whole domain answers is a line of the script, or is kept for the held-out figures."""
    said = {*wide.wide_replies("train"), *wide.wide_replies("test")}
    for task in (*wording.ASKING, "outside"):
        for seed in range(60):
            assert wording.draw_asked(task, random.Random(seed), "train").reply in said
    assert {refusals.NOTHING_HEARD, refusals.NOISE_HEARD, refusals.NOTHING_SEEN} <= said
    assert set(scenes.scene_replies()) <= said and set(domain.replies("train")) <= said


def test_the_recipe_fits_its_plan() -> None:
    """Two lanes; understanding and the voice run side by side, and no stage waits for one of its own lane."""
    assert {stage.lane for stage in RECIPE.stages.values()} == {"mind", "voice"}
    order = RECIPE.order()
    assert order.index("joint") < order.index("speaking") < order.index("assemble")
    assert all(isinstance(stage, Stage) and stage.task for stage in RECIPE.stages.values())


def test_every_stage_runs_after_what_it_needs_and_with_its_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runner of the whole recipe, with processes that are finished at once."""
    begun: dict[str, str] = {}

    class Finished:
        returncode = 0

        def __init__(self, command: list[str]) -> None:
            name = command[command.index("--stage") + 1]
            assert all((tmp_path / need / "final.json").exists() for need in RECIPE.stage(name).needs)
            begun[name] = command[command.index("--threads") + 1]
            (tmp_path / name).mkdir()
            (tmp_path / name / "final.json").write_text("{}")

        def poll(self) -> int:
            return 0

    monkeypatch.setattr(stages.subprocess, "Popen", Finished)
    monkeypatch.setattr(stages.time, "sleep", lambda seconds: None)
    stages.run_all(PATH, tmp_path, lanes=2)
    assert begun == {name: str(stage.threads) for name, stage in RECIPE.stages.items()}
    assert begun["speaking"] == "2"
