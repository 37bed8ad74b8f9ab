"""The speaking half of training: its pieces against their formulas, and pico's voice learnt from nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from descant.errors import ConfigError, OptionError
from descant.inputs.audio import slaney_filters
from descant.train.codec_encoder import Codebook
from descant.train.loop import generator, numpy_rng
from descant.train.mel import codec_mel
from descant.train.nano import domain
from descant.train.nano.sentences import phrase_lines, reply_lines, speech_lines, word_lines
from descant.train.nano.speech_data import (
    BLOCK_FRAMES,
    Corpus,
    Crops,
    Flite,
    MelScale,
    frame_labels,
    trim,
    write_corpus,
)
from descant.train.nano.tones import Tones
from descant.train.recipe import read_recipe
from descant.train.scoring import collapse, edit_distance
from descant.train.tasks.codec import follow, kmeans, revive
from descant.train.tasks.vocoder import spectral_loss

RECIPES = Path(__file__).parents[2] / "recipes"
SCALE = MelScale(20, -6.0, 3.5)


# ---------------------------------------------------------------- mel


@pytest.mark.parametrize("bins, high", [(80, 8000.0), (40, 12000.0)])
def test_mel_filters_equal_the_reference(bins: int, high: float) -> None:
    reference = pytest.importorskip("transformers.audio_utils")
    theirs = reference.mel_filter_bank(513, bins, 0.0, high, 24000, norm="slaney", mel_scale="slaney")
    assert torch.allclose(slaney_filters(24000, 1024, bins, high).mT, torch.from_numpy(theirs).float(), atol=1e-7)


@pytest.mark.parametrize("frames", [1, 7, 48])
def test_mel_has_a_frame_for_every_240_samples(frames: int) -> None:
    assert codec_mel(torch.randn(2, max(frames, 3) * 240), 20).shape == (2, max(frames, 3), 20)


def test_a_click_is_loudest_in_the_frame_that_holds_it() -> None:
    samples = torch.zeros(1, 40 * 240)
    samples[0, 17 * 240 + 120] = 1.0
    assert int(codec_mel(samples, 20)[0].sum(-1).argmax()) == 17


def test_a_tone_is_loudest_in_its_bin() -> None:
    t = torch.arange(24000) / 24000
    centres = slaney_filters(24000, 1024, 80).argmax(1) * 24000 / 1024
    loudest = int(codec_mel(torch.sin(2 * math.pi * 1000 * t)[None], 80)[0, 50].argmax())
    assert abs(float(centres[loudest]) - 1000) < 60


# ---------------------------------------------------------------- what is said


def test_nothing_held_out_is_ever_said_in_training() -> None:
    lines = speech_lines(phrases=300, words=300, seed=1)
    train = {line.text for line in lines if not line.held_out}
    assert len({line.text for line in lines}) == len(lines)
    assert not train & (set(domain.replies("test")) - set(domain.replies("train")))
    assert set(domain.replies("train")) <= train
    assert lines == speech_lines(phrases=300, words=300, seed=1)
    assert lines != speech_lines(phrases=300, words=300, seed=2)


def test_every_word_is_said_about_equally_often() -> None:
    counts: dict[str, int] = {}
    for line in word_lines(2000, seed=1):
        for word in domain.normalise_words(line.text).split():
            counts[word] = counts.get(word, 0) + 1
    assert max(counts.values()) - min(counts.values()) <= 2


def test_phrases_look_like_replies_but_are_none() -> None:
    known = [line.text for line in reply_lines()]
    phrases = [line.text for line in phrase_lines(400, 1, known)]
    assert not set(phrases) & set(known)
    assert all(text[0].isupper() and text.endswith(".") and "{" not in text for text in phrases)


def test_the_missing_teacher_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(OptionError, match="apt install flite"):
        Flite()


# ---------------------------------------------------------------- the corpus


def test_labels_are_the_phones_at_the_frames_centres() -> None:
    labels = frame_labels([("pau", 0.02), ("a", 0.05), ("b", 0.06)], ("pau", "a", "b"), 8)
    assert labels.tolist() == [0, 0, 1, 1, 1, 2, 0, 0]


def test_trim_keeps_little_silence_and_moves_the_labels() -> None:
    samples, phones = trim(np.ones(24000, np.float32), [("pau", 0.3), ("a", 0.5), ("pau", 1.0)])
    assert len(samples) == round((0.5 + 0.12 - 0.24) * 24000)
    assert phones[1][0] == "a"
    assert phones[1][1] == pytest.approx(0.26)


def test_a_corpus_cut_off_at_any_point_is_completed_to_the_same_bytes(tmp_path: Path) -> None:
    lines = word_lines(12, seed=1, longest=2)
    write_corpus(tmp_path / "whole", lines, Tones(), SCALE)
    write_corpus(tmp_path / "cut", lines[:7], Tones(), SCALE)
    with (tmp_path / "cut" / "index.jsonl").open("a") as file:
        file.write('{"text": "half a li')
    with (tmp_path / "cut" / "mel.f16").open("ab") as file:
        file.write(b"123")
    write_corpus(tmp_path / "cut", lines, Tones(), SCALE)
    for name in ("audio.i16", "mel.f16", "phones.u8", "index.jsonl", "provenance.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_crops_are_whole_blocks_inside_one_utterance(tmp_path: Path) -> None:
    write_corpus(tmp_path, word_lines(20, seed=1, longest=3), Tones(), SCALE)
    corpus = Corpus([tmp_path])
    crops = Crops(corpus, corpus.select(held_out=False), 48)
    cuts = crops.draw(numpy_rng(1), 200)
    assert cuts == crops.draw(numpy_rng(1), 200)
    for number, start, frames in cuts:
        row = corpus.utterances[number][1]
        assert start % BLOCK_FRAMES == 0
        assert start + frames <= row.frames
        assert not row.held_out
        assert corpus.mel(number, start, frames).shape == (48, 20)
        assert corpus.audio(number, start, frames).shape == (48, 240)


# ---------------------------------------------------------------- codebook and losses


def test_kmeans_lowers_the_distortion_and_leaves_no_centre_empty() -> None:
    clusters = torch.randn(8, 5, generator=generator(1)) * 10
    points = clusters.repeat(50, 1) + 0.1 * torch.randn(400, 5, generator=generator(2))

    def distortion(rounds: int) -> float:
        return float(torch.cdist(points, kmeans(points, 16, rounds, generator(5))).min(1).values.square().mean())

    assert distortion(12) < 0.5 * distortion(0)
    nearest = torch.cdist(points, kmeans(points, 16, 12, generator(5))).argmin(1)
    assert len(set(nearest.tolist())) == 16


def test_entries_follow_the_latents_that_choose_them() -> None:
    book = Codebook(3, 2)
    book.entries.copy_(torch.tensor([[0.0, 0.0], [4.0, 0.0], [9.0, 9.0]]))
    book.counts.fill_(2.0)
    book.sums.copy_(book.entries * 2)
    latents = torch.tensor([[0.0, 1.0], [1.0, 0.0], [4.0, 2.0]])
    codes = book.nearest(latents)
    assert codes.tolist() == [0, 0, 1]
    follow(book, latents, codes, decay=0.5)
    assert torch.allclose(book.counts, torch.tensor([2.0, 1.5, 1.0]))
    assert torch.allclose(book.entries[0], torch.tensor([0.25, 0.25]))
    assert torch.allclose(book.entries[1], torch.tensor([4.0, 1.0 / 1.5]))
    assert torch.allclose(book.entries[2], torch.tensor([9.0, 9.0]))


def test_dead_entries_move_to_latents() -> None:
    book = Codebook(2, 2)
    book.counts.copy_(torch.tensor([5.0, 0.001]))
    latents = torch.tensor([[7.0, 7.0]])
    assert revive(book, latents, 0.05, generator(1)) == 1
    assert torch.equal(book.entries[1], latents[0])
    assert torch.equal(book.entries[0], torch.zeros(2))


def test_spectral_loss_is_zero_for_the_truth_and_falls_towards_it() -> None:
    truth = torch.randn(1, 4800, generator=generator(1)) * 0.1
    other = torch.randn(1, 4800, generator=generator(2)) * 0.1

    def loss(samples: Tensor) -> float:
        return float(spectral_loss(samples, truth, 512, 120))

    assert loss(truth) == 0.0
    assert 0 < loss(truth + 0.01 * other) < loss(truth + 0.1 * other) < loss(other)


def test_phones_are_compared_without_repeats_and_pauses() -> None:
    assert collapse([0, 1, 1, 0, 1, 2, 2, 0]) == [1, 1, 2]
    assert edit_distance([1, 2, 3], [1, 3]) == 1
    assert edit_distance([], [1, 2]) == 2


# ---------------------------------------------------------------- recipes


@pytest.mark.parametrize("name", ["nano", "nano-scratch", "pico"])
def test_recipes_can_be_read_and_their_stages_ordered(name: str) -> None:
    recipe = read_recipe(RECIPES / f"{name}.yaml")
    order = recipe.order()
    for stage in order:
        assert all(order.index(need) < order.index(stage) for need in recipe.stage(stage).needs)
    token2wav, talker = recipe.model.token2wav, recipe.model.talker
    assert token2wav is not None
    assert talker is not None
    assert talker.codec_pad_id == token2wav.dit.num_embeds


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("hidden_size: 64", "hidden_sise: 64", "unknown key 'hidden_sise'; did you mean 'hidden_size'"),
        ("pad_id: 259", "", "missing key 'pad_id'"),
        ("lr: 4.0e-3", "lr: 4e-3", "written 1.0e-3"),
        ("needs: [voice-data]", "needs: [voice]", "no stage 'voice'"),
        ("fullatt_block_indexes: [1]", "fullatt_block_indexes: 1", "expected a list"),
    ],
)
def test_a_wrong_recipe_is_refused_by_the_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (RECIPES / "pico.yaml").read_text()
    assert old in text
    (tmp_path / "pico.yaml").write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        read_recipe(tmp_path / "pico.yaml")


def test_provenance_says_who_spoke(tmp_path: Path) -> None:
    write_corpus(tmp_path, word_lines(2, seed=1, longest=2), Tones(), SCALE)
    record = json.loads((tmp_path / "provenance.json").read_text())
    assert record["generator"] == "descant.train.nano.tones"
    assert record["licence"] == "Apache-2.0"
