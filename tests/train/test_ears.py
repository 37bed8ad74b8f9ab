"""Cached ears: training on features that were computed before is training with the encoder at work."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from descant.errors import ConfigError, OptionError, WeightsError
from descant.inputs.audio import log_mel
from descant.model.thinker import Thinker
from descant.train import ears
from descant.train.examples import IGNORED_LABEL, Example, ExampleEncoder, PastTurn, encode_example, reply_losses
from descant.train.loop import StageContext
from descant.train.nano import videos
from descant.train.nano.inputs import NANO_INPUTS, nano_tokenizer
from descant.train.nano.sounds import make_sound
from descant.train.recipe import Stage, read_recipe
from descant.train.tasks.setting import new_thinker
from descant.types import Audio, Clip, Image, Message, Video, assistant, system, user

PICO = read_recipe(Path(__file__).parents[2] / "recipes" / "pico.yaml")
HALF_ROUNDING = 2e-3  # of a loss, relative: features lose their last bits in half precision


def desk(cached: bool = False) -> ExampleEncoder:
    builder = ears.CachedPrompts if cached else ears.PromptBuilder
    return ExampleEncoder(nano_tokenizer(), NANO_INPUTS, PICO.model.thinker, builder)


def thinker() -> Thinker:
    made = new_thinker(StageContext(PICO, Stage("thinker", "mind", name="stage"), Path()))
    torch.manual_seed(1)
    for name, value in made.audio.named_parameters():  # fresh weights hear next to nothing
        if value.ndim > 1 and "proj." not in name:
            torch.nn.init.normal_(value, 0, 1 / np.sqrt(value[0].numel()))
    torch.nn.init.normal_(made.audio.proj.weight, 0, 0.3)
    return made


def sound(seed: int, seconds: float) -> np.ndarray:
    return make_sound("whistle", np.random.default_rng(seed), seconds)


LENGTHS = (0.4, 1.0, 2.0, 2.03, 3.7, 4.02, 5.3, 1.7, 0.9, 2.5, 6.1)


def plan(count: int = len(LENGTHS), name: str = "clips") -> ears.FeaturePlan:
    def mel(n: int) -> Tensor:
        return log_mel(sound(n, LENGTHS[n]), NANO_INPUTS)

    return ears.FeaturePlan(count, name, mel, lambda n: {"seconds": LENGTHS[n]})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ears.FeatureStore:
    folder = tmp_path_factory.mktemp("features")
    assert ears.compute_features(folder, thinker().audio.eval(), plan())
    return ears.FeatureStore(folder, PICO.model.thinker.audio.d_model)


# ---------------------------------------------------------------- the law


def examples(number: int, features: Tensor | None) -> list[Example]:
    """Talks with one sound in them, first, last, alone and in a video; features: in place of the samples."""
    samples = sound(number, LENGTHS[number])
    heard: Audio = Audio(samples, 16000)
    if features is not None:
        heard = ears.CachedAudio(np.zeros(0, np.float32), 16000, features)
    frames = videos.video_frames(videos.draw_video(random.Random(number)))
    film: Video = Video(Clip(frames, 2.0, samples), use_audio=True)
    if features is not None:
        film = ears.CachedVideo(Clip(frames, 2.0), True, features)
    picture = Image(np.full((112, 112, 3), 90, np.uint8))
    return [
        Example("a", user(heard), "Twelve."),
        Example("b", user(heard, "what was that?"), "A whistle, it was.", before=(PastTurn(user("hi"), "Hello."),)),
        Example(
            "c", user("and now?"), "Yes.", before=(PastTurn(user(heard, picture), "It is grey."),), system="Be short."
        ),
        Example("d", user(film, "when?"), "In second two it was red."),
    ]


def losses(model: Thinker, desk: ExampleEncoder, given: list[Example]) -> Tensor:
    made = [encode_example(desk, example) for example in given]
    found, _ = reply_losses(model, model.embed([one.prompt for one in made]), made)
    return found


def test_cached_features_train_as_the_encoder_does(store: ears.FeatureStore) -> None:
    """The same losses token by token, and the same gradients of all that learns."""
    for number in (0, 3, 5, 10):
        live, cached = thinker(), thinker()
        ears.with_cached_ears(cached)
        wanted = losses(live, desk(), examples(number, None))
        found = losses(cached, desk(cached=True), examples(number, store[number]))
        torch.testing.assert_close(found, wanted, rtol=HALF_ROUNDING, atol=HALF_ROUNDING)
        wanted.mean().backward()
        found.mean().backward()
        gradients = dict(live.named_parameters())
        for name, parameter in cached.named_parameters():
            if not parameter.requires_grad or gradients[name].grad is None:
                continue
            assert parameter.grad is not None, name
            scale = float(gradients[name].grad.norm())
            assert float((parameter.grad - gradients[name].grad).norm()) < 0.02 * scale + 1e-7, name


def test_the_sound_counts(store: ears.FeatureStore) -> None:
    """Else the law above would say nothing."""
    cached = thinker()
    ears.with_cached_ears(cached)
    with torch.no_grad():
        one, other = (losses(cached, desk(cached=True), examples(4, features)) for features in (store[4], -store[4]))
    assert float((one - other).abs().max()) > 10 * HALF_ROUNDING


def test_only_the_projection_of_cached_ears_learns() -> None:
    model = thinker()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    cached = ears.with_cached_ears(model)
    assert {n for n, p in cached.named_parameters() if p.requires_grad} == {"proj.weight", "proj.bias"}
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert before.keys() == model.state_dict().keys()


@pytest.mark.parametrize(
    "part",
    [
        Audio(np.zeros(1600, np.float32), 16000),
        Video(Clip(np.zeros((8, 56, 56, 3), np.uint8), 2.0, np.zeros(64000, np.float32)), True),
    ],
)
def test_samples_are_refused_where_features_are_expected(part: Audio | Video) -> None:
    with pytest.raises(OptionError, match="cached sounds only"):
        desk(cached=True).prompt(Example("x", user(part), "y"))


# ---------------------------------------------------------------- the store


def test_features_are_the_encoders_in_half_precision(store: ears.FeatureStore) -> None:
    model = thinker().audio.eval()
    assert len(store) == len(LENGTHS)
    for number, seconds in enumerate(LENGTHS):
        with torch.inference_mode():
            wanted = model.features([log_mel(sound(number, seconds), NANO_INPUTS)])[0]
        assert store[number].shape == wanted.shape and store.clips[number].about == {"seconds": seconds}
        assert float((store[number] - wanted).abs().max()) < 1e-3 * float(wanted.abs().max())


@pytest.mark.parametrize("harm", ["none", "half a line", "half a group", "extra features", "no index"])
def test_an_interrupted_cache_is_the_whole_one(tmp_path: Path, harm: str) -> None:
    model = thinker().audio.eval()
    ears.compute_features(tmp_path / "whole", model, plan())
    cut = tmp_path / "cut"
    assert not ears.compute_features(cut, model, plan(), stop_after=1)
    lines = (cut / "index.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == ears.GROUP_CLIPS
    if harm == "half a line":
        (cut / "index.jsonl").write_text("".join(lines) + lines[0][:11])
    elif harm == "half a group":
        (cut / "index.jsonl").write_text("".join(lines[:5]))
    elif harm == "extra features":
        with (cut / "features.f16").open("ab") as file:
            file.write(b"x" * 1001)
    elif harm == "no index":
        (cut / "index.jsonl").unlink()
    assert ears.compute_features(cut, model, plan())
    assert ears.compute_features(cut, model, plan())  # and a third call changes nothing
    for name in ("features.f16", "index.jsonl", "plan.json"):
        assert (cut / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_features_of_other_ears_or_clips_are_refused(tmp_path: Path) -> None:
    model = thinker().audio.eval()
    ears.compute_features(tmp_path, model, plan())
    with pytest.raises(ConfigError, match="remove it"):
        ears.compute_features(tmp_path, model, plan(name="others"))
    with pytest.raises(ConfigError, match="remove it"):
        ears.compute_features(tmp_path, model, plan(count=9))
    with torch.no_grad():
        model.layers[1].fc1.weight[3, 3] += 1e-3
    with pytest.raises(ConfigError, match="remove it"):
        ears.compute_features(tmp_path, model, plan())


def test_a_changed_projection_keeps_the_features(tmp_path: Path) -> None:
    """The projection learns, and comes after what is kept."""
    model = thinker().audio.eval()
    ears.compute_features(tmp_path, model, plan())
    with torch.no_grad():
        model.proj.weight.zero_()
    assert ears.compute_features(tmp_path, model, plan())
    assert json.loads((tmp_path / "plan.json").read_text())["clips"] == len(LENGTHS)


def test_a_missing_store_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="run the stage"):
        ears.FeatureStore(tmp_path, 64)


# ---------------------------------------------------------------- talks


def whole_talk(example: Example) -> list[Message]:
    messages = [system(example.system)] if example.system else []
    for turn in example.before:
        messages += [turn.question, assistant(turn.reply)]
    return [*messages, example.question]


TALK = Example(
    "talk", user("and the system?"), "The user and the assistant.", system="Be kind.",
    before=(PastTurn(user("what is 2 + 2?"), "Four."), PastTurn(user(Image(np.zeros((112, 112, 3), np.uint8)), "and?"),
            "Five, user.", learnt=False), PastTurn(user("Hm\n"), "Six.")),
)  # fmt: skip


def test_a_talk_is_laid_out_as_the_model_reads_it() -> None:
    """Message by message, as training composes it, or all at once, as the front door does."""
    made = desk()
    builder = ears.PromptBuilder(made.tokenizer, made.inputs, made.cfg)
    for count in range(len(TALK.before) + 1):
        example = Example("talk", TALK.question, TALK.reply, before=TALK.before[:count], system=TALK.system)
        wanted = builder.build(whole_talk(example), speech=True)
        found = made.prompt(example)
        assert torch.equal(found.ids, wanted.ids) and torch.equal(found.positions, wanted.positions)
        assert [s.first for s in found.spans] == [s.first for s in wanted.spans]


def test_every_right_reply_of_a_talk_is_learnt_and_nothing_else() -> None:
    """Each stretch of labels is a reply and its stop token, and stands one before the ids that it predicts."""
    made = encode_example(desk(), TALK)
    learnt = (made.labels != IGNORED_LABEL).nonzero()[:, 0].tolist()
    stretches: list[list[int]] = []
    for at in learnt:
        if stretches and stretches[-1][-1] == at - 1:
            stretches[-1].append(at)
        else:
            stretches.append([at])
    said = [made.labels[stretch].tolist() for stretch in stretches]
    assert [desk().tokenizer.decode(ids[:-1]) for ids in said] == ["Four.", "Six.", TALK.reply]
    stop = desk().reply("")[0]
    assert all(ids[-1] == stop and stop not in ids[:-1] for ids in said)
    for stretch in stretches[:-1]:
        assert made.labels[stretch].tolist() == made.prompt.ids[[at + 1 for at in stretch]].tolist()
