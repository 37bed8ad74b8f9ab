"""Encoders learn to hear and to see before they learn to answer: with small heads that are thrown away afterwards.

Audio: the characters of what is said (CTC) and the kind of a sound. Vision: colour, shape and count.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from descant.errors import ConfigError
from descant.inputs.audio import log_mel
from descant.inputs.image import image_grid
from descant.inputs.video import video_grid
from descant.train.examples import ExampleEncoder
from descant.train.loop import Metrics, StageContext, Task
from descant.train.mel import mask_mel
from descant.train.nano import domain, phrases, pictures, scenes, sounds, videos
from descant.train.nano.augment import distort
from descant.train.nano.questions import Clips
from descant.train.recipe import read_dataclass
from descant.train.scoring import collapse, edit_distance
from descant.train.tasks.setting import clips_of, encoder_of, new_thinker

LETTERS = " abcdefghijklmnopqrstuvwxyz"  # class 0 of the CTC head is its blank, class i + 1 is letter i


def spell(text: str) -> list[int]:
    """The classes of a text without digits."""
    return [LETTERS.index(c) + 1 for c in domain.normalise_words(text)]


def read_off(classes: Sequence[int]) -> str:
    """Greedy CTC: repeats are one, blanks nothing."""
    return "".join(LETTERS[c - 1] for c in collapse(classes))


def ctc_loss(head: nn.Module, rows: Sequence[Tensor], letters: Sequence[Sequence[int]]) -> Tensor:
    """Connectionist temporal classification: rows of each clip (T_i, D) and the classes of its letters.

    The mean over clips of the loss per letter; a clip too short for its letters counts nothing.
    """
    lengths = torch.tensor([len(r) for r in rows])
    logits = head(nn.utils.rnn.pad_sequence(list(rows))).log_softmax(-1)  # (T, B, classes)
    wanted = torch.tensor([c for classes in letters for c in classes])
    sizes = torch.tensor([len(classes) for classes in letters])
    return F.ctc_loss(logits, wanted, lengths, sizes, zero_infinity=True)


def character_errors(head: nn.Module, heard: Iterable[tuple[Tensor, str]]) -> float:
    """Character errors per character. heard: rows of each clip (T, D), and the words that it says."""
    wrong = count = 0
    for rows, said in heard:
        text = domain.normalise_words(said)
        wrong += edit_distance(read_off(head(rows).argmax(-1).tolist()), text)
        count += len(text)
    return wrong / max(1, count)


@dataclass(frozen=True)
class HearingOptions:
    """sounds: the share of sounds among the clips (1: sounds alone, no spoken questions are needed).
    sort: batches drawn together and dealt out by length."""

    sounds: float = 0.25
    sort: int = 8
    evaluated: int = 300


@dataclass(frozen=True)
class HeardClip:
    """A clip's log-mel (M, F) and what is known of it: the classes of its letters, or its kind of sound."""

    mel: Tensor
    letters: tuple[int, ...]
    kind: int  # -1: speech


class HearingTask(Task[list[HeardClip]]):
    """CTC on spoken questions, cross entropy on kinds of sounds."""

    def __init__(self, context: StageContext):
        self.stage = context.stage
        self.options = read_dataclass(HearingOptions, self.stage.options or {}, f"stages.{self.stage.name}.options")
        self.clips = clips_of(context, "train")
        self.test = clips_of(context, "test")
        if self.clips is None and self.options.sounds < 1:
            raise ConfigError(
                f"stage {self.stage.name!r} has no spoken questions: name the stage that makes them under needs, "
                "or set options.sounds to 1.0"
            )
        self.desk = encoder_of(context)
        self.thinker = new_thinker(context)
        self.encoder = self.thinker.audio
        self.letters = nn.Linear(self.encoder.cfg.output_dim, len(LETTERS) + 1)
        self.kinds = nn.Linear(self.encoder.cfg.output_dim, len(sounds.SOUND_KINDS))
        self.modules = {"thinker": nn.ModuleDict({"audio": self.encoder}), "letters": self.letters, "kinds": self.kinds}
        self._group: tuple[int, list[list[HeardClip]]] = (-1, [])

    def batch(self, step: int) -> list[HeardClip]:
        group, place = divmod(step, self.options.sort)
        if self._group[0] != group:
            total = self.stage.batch * self.options.sort
            drawn = sorted((self._draw(group * total + i) for i in range(total)), key=lambda heard: heard.mel.shape[1])
            batches = [drawn[i : i + self.stage.batch] for i in range(0, total, self.stage.batch)]
            random.Random(f"deal/{self.stage.seed}/{group}").shuffle(batches)
            self._group = (group, batches)
        return self._group[1][place]

    def _draw(self, number: int) -> HeardClip:
        rng = np.random.default_rng([self.stage.seed, number])
        if self.clips is None or rng.random() < self.options.sounds:
            kind = int(rng.integers(len(sounds.SOUND_KINDS)))
            samples = sounds.make_sound(sounds.SOUND_KINDS[kind], rng, rng.uniform(0.8, 2.0))
            return HeardClip(log_mel(samples, self.desk.inputs), (), kind)
        i = int(rng.integers(len(self.clips)))
        mel = log_mel(distort(self.clips[i], rng), self.desk.inputs).numpy()
        return HeardClip(torch.from_numpy(mask_mel(mel, rng)), tuple(spell(self.clips.spoken[i].text)), -1)

    def loss(self, batch: list[HeardClip], rng: torch.Generator) -> tuple[Tensor, Metrics]:
        rows = self.encoder([heard.mel for heard in batch])
        speech = [i for i, heard in enumerate(batch) if heard.kind < 0]
        noises = [i for i, heard in enumerate(batch) if heard.kind >= 0]
        spoken = event = rows[0].new_zeros(())
        if speech:
            spoken = ctc_loss(self.letters, [rows[i] for i in speech], [batch[i].letters for i in speech])
        if noises:
            guessed = self.kinds(torch.stack([rows[i].mean(0) for i in noises]))
            event = F.cross_entropy(guessed, torch.tensor([batch[i].kind for i in noises]))
        seconds = sum(heard.mel.shape[1] for heard in batch) / 100
        metrics = {"ctc": float(spoken.detach()), "event": float(event.detach()), "units": seconds}
        return (len(speech) * spoken + len(noises) * 0.5 * event) / len(batch), metrics

    def hear(self, clips: Clips, limit: int) -> float:
        """Character errors per character on the first clips of a set."""
        numbers = range(min(limit, len(clips)))
        heard = ((self.encoder([log_mel(clips[i], self.desk.inputs)])[0], clips.spoken[i].text) for i in numbers)
        return character_errors(self.letters, heard)

    def evaluate(self) -> Metrics:
        rng = np.random.default_rng([self.stage.seed, 2**40])
        right = 0
        count = self.options.evaluated
        for i in range(count):
            kind = i % len(sounds.SOUND_KINDS)
            rows = self.encoder([log_mel(sounds.make_sound(sounds.SOUND_KINDS[kind], rng), self.desk.inputs)])[0]
            right += int(self.kinds(rows.mean(0)).argmax()) == kind
        figures = {"event": right / count}
        return figures if self.test is None else {"cer": self.hear(self.test, count), **figures}


NOTHING = len(phrases.SHAPES)  # the class of a cell in which no shape has its centre


@dataclass(frozen=True)
class Seen:
    """The patches of a picture or of two video frames, and what they show; -1: not to be judged."""

    patches: Tensor
    grid: tuple[int, int, int]
    labels: tuple[int, int, int]  # colour, shape, count - 1
    cells: Tensor  # (N / 4,) int64: for each row of the encoder the shape centred there, or NOTHING


def centres(scene: pictures.Scene, high: int, wide: int) -> Tensor:
    """Where the shapes are, on the merged grid: (high * wide,) classes."""
    cells = torch.full((high, wide), NOTHING)
    for x, y, _, _ in scene.boxes:
        cells[int(y * high), int(x * wide)] = phrases.SHAPES.index(scene.shape)
    return cells.flatten()


@dataclass(frozen=True)
class SeeingOptions:
    """wide: pictures of the whole domain (`nano.scenes`: up to nine shapes, as found); evaluated: held-out pictures."""

    wide: bool = False
    evaluated: int = 300


class SeeingTask(Task[list[Seen]]):
    """Colour, shape and count of the whole picture, and the shape centred in each cell of it (what a picture's mean
    says is learnt far sooner once each part knows its own). One example in five is a second of video."""

    def __init__(self, context: StageContext):
        self.stage = context.stage
        self.options = read_dataclass(SeeingOptions, self.stage.options or {}, f"stages.{self.stage.name}.options")
        most = scenes.MOST_SHAPES if self.options.wide else 6
        self.desk: ExampleEncoder = encoder_of(context)
        self.thinker = new_thinker(context)
        self.encoder = self.thinker.vision
        width = self.encoder.cfg.out_hidden_size
        self.heads = nn.ModuleList([nn.Linear(width, n) for n in (len(phrases.COLOURS), len(phrases.SHAPES), most)])
        self.cells = nn.Linear(width, NOTHING + 1)
        self.modules = {"thinker": nn.ModuleDict({"vision": self.encoder}), "heads": self.heads, "cells": self.cells}

    def batch(self, step: int) -> list[Seen]:
        size = self.stage.batch
        return [self._draw("train", step * size + i) for i in range(size)]

    def held_out_batch(self) -> list[Seen]:
        return [self._draw("test", i) for i in range(self.stage.batch)]

    def _draw(self, split: domain.Split, number: int) -> Seen:
        rng = random.Random(f"seeing/{self.stage.seed}/{split}/{number}")
        merge = self.desk.inputs.merge_size
        if split == "train" and number % 5 == 0:
            clip = videos.draw_video(rng)
            second = rng.randrange(videos.SECONDS)
            grid = video_grid(np.stack([videos.frame(clip, second)] * 2), self.desk.inputs)
            unknown = torch.full((len(grid.patches) // merge**2,), -1)
            return Seen(grid.patches, grid.grid, (phrases.COLOURS.index(clip.colours[second]), -1, -1), unknown)
        scene = self._scene(split, rng)
        grid = image_grid(pictures.render_scene(scene), self.desk.inputs)
        colour = -1 if scene.colour == pictures.UNNAMED else phrases.COLOURS.index(scene.colour)
        labels = (colour, phrases.SHAPES.index(scene.shape), scene.count - 1)
        return Seen(grid.patches, grid.grid, labels, centres(scene, grid.grid[1] // merge, grid.grid[2] // merge))

    def _scene(self, split: domain.Split, rng: random.Random) -> pictures.Scene:
        unnamed = 0.5 if split == "train" else 0.0
        if not self.options.wide:
            return pictures.draw_picture(rng, split, unnamed)
        return (
            scenes.draw_placed(rng, split, unnamed)[0]
            if rng.random() < 0.15
            else scenes.draw_scene(rng, split, unnamed)
        )

    def guesses(self, batch: list[Seen]) -> tuple[list[Tensor], Tensor]:
        """Logits (B, classes) of each of the three heads, and of all cells one after the other (sum N / 4, classes)."""
        rows = self.encoder(torch.cat([seen.patches for seen in batch]), [seen.grid for seen in batch])
        pooled = torch.stack([part.mean(0) for part in torch.split(rows, [len(seen.cells) for seen in batch])])
        return [head(pooled) for head in self.heads], self.cells(rows)

    def loss(self, batch: list[Seen], rng: torch.Generator) -> tuple[Tensor, Metrics]:
        labels = torch.tensor([seen.labels for seen in batch]).T
        guessed, cells = self.guesses(batch)
        losses = [F.cross_entropy(g, wanted, ignore_index=-1) for g, wanted in zip(guessed, labels, strict=True)]
        weights = torch.ones(NOTHING + 1)
        weights[NOTHING] = 0.3  # most cells are empty
        losses.append(F.cross_entropy(cells, torch.cat([seen.cells for seen in batch]), weights, ignore_index=-1))
        names = ("colour", "shape", "count", "cells")
        metrics = {name: float(loss.detach()) for name, loss in zip(names, losses, strict=True)}
        return torch.stack(losses).sum(), {**metrics, "units": float(len(batch))}

    def evaluate(self) -> Metrics:
        """On pictures whose (colour, shape) pair was never shown."""
        batch = [self._draw("test", i) for i in range(self.options.evaluated)]
        labels = torch.tensor([seen.labels for seen in batch]).T
        guessed, _ = self.guesses(batch)
        right = [float((g.argmax(-1) == wanted).float().mean()) for g, wanted in zip(guessed, labels, strict=True)]
        return dict(zip(("colour", "shape", "count"), right, strict=True))
