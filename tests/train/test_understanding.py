"""Lessons, mixtures and the two encoder trainers: their labels, their splits and their small formulas."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from descant.errors import ConfigError, OptionError
from descant.export.checkpoint import save_checkpoint
from descant.inputs.prompt import PromptBuilder
from descant.model.thinker import Thinker
from descant.train.examples import IGNORED_LABEL, Example, ExampleEncoder, encode_example, greedy_replies, reply_losses
from descant.train.loop import StageContext, new_optimizer
from descant.train.nano import domain, mixture, phrases, pictures, questions, sounds
from descant.train.nano.inputs import NANO_INPUTS, nano_tokenizer
from descant.train.recipe import Stage, read_recipe
from descant.train.scoring import edit_distance
from descant.train.tasks.encoders import NOTHING, HearingTask, SeeingTask, centres, read_off, spell
from descant.train.tasks.setting import new_thinker
from descant.train.tasks.thinker import ThinkerTask, begin_with
from descant.types import user
from descant.weights.checkpoint import Checkpoint
from descant.weights.generation import default_generation
from descant.weights.parts import build_parts

RECIPES = Path(__file__).parents[2] / "recipes"
PICO = read_recipe(RECIPES / "pico.yaml")


def desk() -> ExampleEncoder:
    return ExampleEncoder(nano_tokenizer(), NANO_INPUTS, PICO.model.thinker)


def context(runs: Path, stage: Stage) -> StageContext:
    return StageContext(PICO, replace(stage, name="stage"), runs)


def thinker() -> Thinker:
    return new_thinker(context(Path(), Stage("thinker", "mind")))


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> questions.Clips:
    """Spoken questions of every task, hummed."""

    def hum(text: str, voice: str) -> np.ndarray:
        return (0.5 * sounds.tone(300, 0.02 * len(text))).astype(np.float32)

    monkeypatch.setattr(questions, "synthesise", hum)
    list(questions.build_questions(tmp_path / "clips", questions.plan(150, 0, "train")))
    return questions.Clips(tmp_path / "clips")


# ---------------------------------------------------------------- lessons


@pytest.mark.parametrize("name", ["nano", "nano-scratch", "pico"])
def test_recipes_know_the_ids_of_the_tokenizer(name: str) -> None:
    ids, tokenizer = read_recipe(RECIPES / f"{name}.yaml").model.thinker, nano_tokenizer()
    named = {"<|AUDIO|>": ids.ids.audio, "<|IMAGE|>": ids.ids.image, "<|VIDEO|>": ids.ids.video,
             "<|audio_bos|>": ids.ids.audio_start, "<|audio_eos|>": ids.ids.audio_end,
             "<|vision_bos|>": ids.ids.vision_start, "<|vision_eos|>": ids.ids.vision_end,
             "<|endoftext|>": ids.pad_id, "<|im_end|>": ids.eos_id}  # fmt: skip
    assert {name: tokenizer.special(name) for name in named} == named
    assert ids.text.vocab_size > tokenizer.vocab_size + 2


@pytest.mark.parametrize("task", ["plus", "colour", "sound", "video", "say"])
def test_a_lesson_is_the_prompt_of_inference_with_its_reply(task: str) -> None:
    example = mixture.make_example(mixture.Source("test", distorted=False), task, random.Random(0))
    prompt = PromptBuilder(nano_tokenizer(), NANO_INPUTS, PICO.model.thinker).build([example.question], speech=True)
    made, length = encode_example(desk(), example), len(prompt)
    assert torch.equal(made.prompt.ids[:length], prompt.ids)
    assert torch.equal(made.prompt.positions[:, :length], prompt.positions)
    learnt = made.labels != IGNORED_LABEL
    assert not learnt[: length - 1].any() and learnt[length - 1 :].all()
    written = made.labels[learnt].tolist()
    assert desk().tokenizer.decode(written) == example.reply and written[-1] == desk().reply("")[0]
    assert made.prompt.ids[length:].tolist() == written[:-1]
    steps = made.prompt.positions[:, length:]
    assert (steps == torch.arange(prompt.next_position, prompt.next_position + steps.shape[1])).all()


def test_a_batch_has_the_losses_of_its_lessons_alone() -> None:
    source, model = mixture.Source("train", distorted=False), thinker()
    made = [
        encode_example(desk(), mixture.make_example(source, task, random.Random(1)))
        for task in ("chat", "colour", "sound", "video")
    ]
    with torch.no_grad():
        rows = model.embed([one.prompt for one in made])
        alone = [reply_losses(model, [row], [one])[0] for row, one in zip(rows, made, strict=True)]
        for together in (1, 2, 4):
            losses, owners = reply_losses(model, rows, made, together)
            for i, expected in enumerate(alone):
                torch.testing.assert_close(losses[owners == i], expected, atol=2e-5, rtol=1e-4)


def test_what_the_user_says_has_no_loss() -> None:
    """The reply's loss does not ask the prompt's own tokens to be predicted."""
    model = thinker()
    one = encode_example(desk(), Example("say", user("Say: hello"), "hello"))
    losses, _ = reply_losses(model, model.embed([one.prompt]), [one])
    hidden = model(model.embed([one.prompt])[0][None], one.prompt.positions[:, None])
    learnt = one.labels != IGNORED_LABEL
    by_hand = F.cross_entropy(model.logits(hidden[0, learnt]), one.labels[learnt])
    assert float(losses.detach().mean()) == pytest.approx(float(by_hand.detach()), rel=1e-5)
    assert int(learnt.sum()) == len("hello") + 1


def test_a_thinker_overfits_a_few_lessons_and_then_says_them() -> None:
    torch.manual_seed(0)
    model, source = thinker(), mixture.Source("train", distorted=False)
    examples = [mixture.make_example(source, task, random.Random(2)) for task in ("chat", "colour", "sound", "video")]
    made = [encode_example(desk(), example) for example in examples]
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(150):
        loss = reply_losses(model, model.embed([one.prompt for one in made]), made)[0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if float(loss.detach()) < 0.02:
            break
    assert float(loss.detach()) < 0.05
    assert greedy_replies(model, desk(), examples) == [example.reply for example in examples]


# ---------------------------------------------------------------- mixtures


def test_every_task_of_the_recipe_can_be_drawn(clips: questions.Clips) -> None:
    source = mixture.Source("train", clips)
    shares = (read_recipe(RECIPES / "nano-scratch.yaml").stage("joint").options or {})["shares"]
    for task in shares:
        example = mixture.make_example(source, task, random.Random(3))
        assert example.task == task and example.reply
        assert len(encode_example(desk(), example)) > 10


def test_the_order_of_drawing_does_not_matter() -> None:
    source, shares = mixture.Source("train"), {"plus": 1.0, "colour": 1.0}
    forward = [mixture.draw_example(source, shares, 5, n).reply for n in range(8)]
    assert [mixture.draw_example(source, shares, 5, n).reply for n in reversed(range(8))] == forward[::-1]


def test_spoken_tasks_need_clips() -> None:
    with pytest.raises(OptionError, match="make them with the data stage"):
        mixture.make_example(mixture.Source("train"), "asked:plus", random.Random(0))


@pytest.mark.parametrize("task", ["colour", "sound", "video"])
def test_shuffled_answers_are_right_only_by_chance(task: str) -> None:
    honest, shuffled = mixture.Source("train"), mixture.Source("train", shuffled=True)
    same = 0
    for seed in range(150):
        a, b = (mixture.make_example(source, task, random.Random(seed)) for source in (honest, shuffled))
        same += domain.correct(task, a.reply, b.reply)
    assert same / 150 < 0.45


# ---------------------------------------------------------------- the trainers


def test_batches_depend_on_the_step_alone(tmp_path: Path) -> None:
    stage = Stage("thinker", "mind", steps=9, batch=3, options={"shares": {"plus": 1, "chat": 1}})
    straight = ThinkerTask(context(tmp_path, stage))
    seen = [[one.prompt.ids for one in straight.batch(step)] for step in range(6)]
    resumed = ThinkerTask(context(tmp_path, stage)).batch(5)
    assert all(torch.equal(a, b.prompt.ids) for a, b in zip(seen[5], resumed, strict=True))


def test_a_start_must_be_one_of_the_needs(tmp_path: Path) -> None:
    options = {"shares": {"plus": 1}, "start": {"decoder": "text"}}
    with pytest.raises(ConfigError, match="a stage in needs"):
        ThinkerTask(context(tmp_path, Stage("thinker", "mind", options=options)))


def test_letters_are_read_off_as_ctc_says() -> None:
    classes = spell("Seven, all!")
    assert read_off(classes) == "seven al"  # without a blank between them, equal letters are one
    blank = [c for pair in zip(classes, [0] * len(classes), strict=True) for c in pair]
    assert read_off(blank) == "seven all"


@pytest.mark.parametrize("a, b, edits", [("", "abc", 3), ("abc", "abc", 0), ("kitten", "sitting", 3)])
def test_distance(a: str, b: str, edits: int) -> None:
    assert edit_distance(a, b) == edit_distance(b, a) == edits


def test_hearing_without_clips_must_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sounds to 1\.0"):
        HearingTask(context(tmp_path, Stage("hearing", "mind")))


def test_cells_say_where_the_shapes_are(tmp_path: Path) -> None:
    scene = pictures.scene("blue", "ring", 3, random.Random(0))
    placed = replace(scene, boxes=((0.1, 0.1, 0.05, 0), (0.9, 0.1, 0.05, 0), (0.9, 0.9, 0.05, 0)))
    ring = phrases.SHAPES.index("ring")
    assert (centres(placed, 2, 3) == ring).tolist() == [True, False, True, False, False, True]
    seen = SeeingTask(context(tmp_path, Stage("seeing", "mind", batch=10))).batch(0)
    for one in seen:
        assert len(one.cells) == one.grid[1] * one.grid[2] // 4 * one.grid[0]
        if one.labels[2] >= 0:
            assert 1 <= int((one.cells != NOTHING).sum()) <= one.labels[2] + 1


def test_slow_parts_take_gentle_adamw_steps_and_the_rest_muon(tmp_path: Path) -> None:
    options = {"shares": {"sound": 1}, "slow": {"audio": 0.25}}
    stage = Stage("thinker", "mind", steps=4, batch=2, lr=1e-3, muon=8.0, options=options)
    task = ThinkerTask(context(tmp_path, stage))
    groups = new_optimizer(task, stage).param_groups
    of = {p: group for group in groups for p in group["params"]}
    assert len(of) == len(task.trained())
    assert all(of[p]["factor"] == 0.25 and not of[p]["matrices"] for p in task.thinker.audio.parameters())
    assert all(of[p]["factor"] == 1.0 for p in task.thinker.decoder.parameters())
    first = task.thinker.decoder.layers[0].get_submodule("self_attn.q_proj")
    assert of[first.weight]["matrices"] and not of[task.thinker.decoder.embed_tokens.weight]["matrices"]
    assert of[first.weight]["weight_decay"] == stage.weight_decay and of[first.bias]["weight_decay"] == 0.0


def test_a_thinker_may_begin_with_the_parts_of_a_model_folder(tmp_path: Path) -> None:
    built = build_parts(PICO.model)
    config, modules = PICO.model, (built.thinker, built.talker, built.token2wav)
    voiceless = Checkpoint(config, NANO_INPUTS, default_generation(config), *modules, {}, tmp_path)
    save_checkpoint(voiceless, tmp_path / "model")
    model, other = thinker(), thinker()
    begin_with(context(tmp_path, Stage("thinker", "mind")), model, {"audio": str(tmp_path / "model")})
    for name, weight in model.state_dict().items():
        source = built.thinker if name.startswith("audio.") else other
        assert torch.equal(weight, source.state_dict()[name]), name
    for part, source in (("ears", str(tmp_path / "model")), ("audio", "no stage"), ("audio", str(tmp_path / "none"))):
        with pytest.raises(ConfigError, match="expected one of audio, vision, decoder and the name of a stage"):
            begin_with(context(tmp_path, Stage("thinker", "mind")), model, {part: source})
