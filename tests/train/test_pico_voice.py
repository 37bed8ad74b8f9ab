"""pico learns to speak, from nothing, inside this test; and only because text, codes and training are there."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from descant.train.loop import Metrics, Run, StageContext, generator, load_module
from descant.train.mel import normalised_mel
from descant.train.recipe import Recipe
from descant.train.scoring import collapse, edit_distance
from descant.train.stages import find_task, run_one
from descant.train.tasks.codec import CodecDecoder, load_codec
from descant.train.tasks.dit import DiTTask
from descant.train.tasks.talker import TalkerTask
from descant.train.tasks.vocoder import VocoderTask

STAGES = ("voice-data", "codec", "vocoder", "dit", "text", "talker")
pytestmark = pytest.mark.slow


def figures(runs: Path, stage: str) -> Metrics:
    found: Metrics = json.loads((runs / stage / "final.json").read_text())["metrics"]
    return found


@pytest.fixture(scope="module")
def talker(recipe: Recipe, runs: Path) -> TalkerTask:
    task = TalkerTask(StageContext(recipe, recipe.stage("talker"), runs))
    task.talker.load_state_dict(load_module(runs / "talker", "talker"))
    return task


@pytest.fixture(scope="module")
def dit(recipe: Recipe, runs: Path) -> DiTTask:
    task = DiTTask(StageContext(recipe, recipe.stage("dit"), runs))
    task.dit.load_state_dict(load_module(runs / "dit", "dit"))
    return task


@pytest.fixture(scope="module")
def vocoder(recipe: Recipe, runs: Path) -> VocoderTask:
    task = VocoderTask(StageContext(recipe, recipe.stage("vocoder"), runs))
    task.vocoder.load_state_dict(load_module(runs / "vocoder", "vocoder"))
    return task


def test_codes_carry_the_letters(runs: Path) -> None:
    codec = figures(runs, "codec")
    assert codec["accuracy"] > 0.95
    assert codec["used"] >= 40
    assert codec["perplexity"] > 30


def test_vocoder_learnt(recipe: Recipe, runs: Path) -> None:
    untrained = VocoderTask(StageContext(recipe, recipe.stage("vocoder"), runs))
    with torch.inference_mode():
        before = untrained.evaluate()["log_mel_l1"]
    assert figures(runs, "vocoder")["log_mel_l1"] < 0.5 * before


@torch.inference_mode()
def test_mel_follows_the_codes(runs: Path, dit: DiTTask) -> None:
    learnt = figures(runs, "dit")["mel_l1_guidance_0"]
    assert learnt < 0.45
    errors = []
    for number in dit.corpus.select(held_out=True)[:8]:
        mel = torch.from_numpy(dit.corpus.mel(number).astype(np.float32))[None]
        codes = torch.from_numpy(dit.codes.of(number, 0, mel.shape[1] // 4))[None]
        shuffled = codes[:, torch.randperm(codes.shape[1], generator=generator(1, number))]
        errors.append(float((dit.sample(shuffled, generator(1, number), 0.0) - mel).abs().mean()))
    assert np.mean(errors) > 1.5 * learnt


def test_talker_spells_lines_it_never_saw(runs: Path) -> None:
    found = figures(runs, "talker")
    assert found["per_words"] < 0.15
    assert found["codec_words"] < 0.05


def lines(talker: TalkerTask) -> list[int]:
    return talker.corpus.select(held_out=True, kind="words")[:8]


def letters(talker: TalkerTask, line: int) -> list[int]:
    return collapse(talker.corpus.phones(line).tolist())


@torch.inference_mode()
def test_talker_without_its_text_is_at_chance(talker: TalkerTask) -> None:
    """The same model, asked to say other lines than those it is judged by: what guessing would give."""
    numbers = lines(talker)
    errors = sum(
        edit_distance(talker.phones_of(talker.say(talker.read_aloud(other))), letters(talker, line))
        for line, other in zip(numbers, numbers[1:] + numbers[:1], strict=True)
    )
    assert errors / sum(len(letters(talker, line)) for line in numbers) > 0.6


@torch.inference_mode()
def test_text_becomes_sound_that_can_be_read_back(talker: TalkerTask, dit: DiTTask, vocoder: VocoderTask) -> None:
    """Text -> codes -> mel -> wave, and back through the codec's own ears."""
    errors = total = 0
    for line in lines(talker):
        codes = talker.say(talker.read_aloud(line))
        mel = dit.sample(codes[None], generator(1, line), 0.0)
        wave = vocoder.vocoder(mel.transpose(1, 2))
        errors += edit_distance(heard(talker, wave, vocoder), letters(talker, line))
        total += len(letters(talker, line))
    assert errors / total < 0.35


@pytest.mark.parametrize("name", ["codec", "vocoder", "dit", "talker"])
def test_held_out_examples_leave_a_task_as_it_was(recipe: Recipe, runs: Path, name: str, tmp_path: Path) -> None:
    stage = replace(recipe.stage(name), held_out_every=recipe.stage(name).log_every)
    task = find_task(stage.task)(StageContext(recipe, stage, runs))
    assert task is not None
    run = Run(task, stage, tmp_path)
    run.step = 100 * stage.held_out_every
    task.prepare(run.step)
    before = copy.deepcopy({key: module.state_dict() for key, module in task.modules.items()})
    assert run.held_out_loss()["held_out"] > 0
    for key, module in task.modules.items():
        assert all(torch.equal(value, before[key][entry]) for entry, value in module.state_dict().items())


def test_held_out_stretches_are_of_held_out_lines(dit: DiTTask) -> None:
    cuts = dit.crops.held_out(5)
    assert len(cuts) == 5
    assert all(dit.corpus.utterances[line][1].held_out and frames == 48 for line, _, frames in cuts)


def heard(talker: TalkerTask, wave: Tensor, vocoder: VocoderTask) -> list[int]:
    cfg = vocoder.cfg
    mel = normalised_mel(wave, cfg.mel_dim, cfg.mel_mean, cfg.mel_std)
    return talker.phones_of(talker.encoder.encode(mel)[0])


def test_teacher_forcing_and_speaking_step_by_step_agree(talker: TalkerTask) -> None:
    """The codes that a line was just given are also what the training rows predict, one step at a time."""
    line = lines(talker)[0]
    example = talker.read_aloud(line)
    said = talker.say(example)
    forced = type(example)(example.prompt, example.reply, torch.cat([said, torch.tensor([talker.cfg.codec_end_id])]))
    talker.options = type(talker.options)(**{**vars(talker.options), "corrupt": 0.0})
    _, metrics = talker.loss([forced], generator(1))
    assert metrics["accuracy"] == 1.0


def test_finished_run_is_not_trained_again(recipe: Recipe, runs: Path) -> None:
    before = (runs / "talker" / "final.safetensors").read_bytes()
    assert run_one(recipe, "talker", runs)
    assert (runs / "talker" / "final.safetensors").read_bytes() == before


def test_codec_decoder_is_never_part_of_the_shipped_weights(recipe: Recipe, runs: Path) -> None:
    _, decoder = load_codec(StageContext(recipe, recipe.stage("dit"), runs))
    assert isinstance(decoder, CodecDecoder)
    assert not any(p.requires_grad for p in decoder.parameters())
