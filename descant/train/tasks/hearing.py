"""Ears from Whisper: read from their package, their features computed once, and their projection taught to spell.

ears      the encoder of Whisper tiny.en, as it is; nothing learns
features  what it makes of every sound of training, in half precision (`descant.train.ears`)
letters   its projection into the Thinker's width learns, by CTC on the letters of what is said
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from descant.errors import ConfigError
from descant.inputs.audio import log_mel
from descant.model.audio import AudioEncoder
from descant.train.ears import FeaturePlan, compute_features
from descant.train.loop import Metrics, StageContext, Task, load_module, save_modules
from descant.train.nano.domain import Split
from descant.train.nano.inputs import inputs_for
from descant.train.nano.questions import Clips
from descant.train.nano.spoken import Bank, HeardSounds
from descant.train.recipe import read_dataclass
from descant.train.tasks.encoders import LETTERS, character_errors, ctc_loss, spell
from descant.train.tasks.setting import bank_of, new_thinker
from descant.train.whisper import PACKAGE, encoder_weights, whisper_file

LICENCE = "MIT, Copyright (c) 2022 OpenAI"


def make_ears(context: StageContext) -> None:
    """The task "ears": Whisper's encoder with a fresh projection, as a finished stage. WeightsError: see `whisper`."""
    ears = new_thinker(context).audio
    path = whisper_file()
    ears.load_state_dict(encoder_weights(path, ears.cfg), strict=False)
    context.folder.mkdir(parents=True, exist_ok=True)
    save_modules(context.folder / "final.safetensors", {"thinker": nn.ModuleDict({"audio": ears})})
    told = {"generator": "Whisper tiny.en's encoder", "package": PACKAGE, "licence": LICENCE,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}  # fmt: skip
    (context.folder / "provenance.json").write_text(json.dumps(told, indent=1))
    (context.folder / "final.json").write_text(json.dumps(told))


def ears_of(context: StageContext, stage: str) -> AudioEncoder:
    """The ears that a finished stage left behind."""
    weights = load_module(context.runs / stage, "thinker")
    ears = AudioEncoder(context.recipe.model.thinker.audio)
    ears.load_state_dict({k.removeprefix("audio."): v for k, v in weights.items() if k.startswith("audio.")})
    return ears.eval()


@dataclass(frozen=True)
class FeaturesOptions:
    """Numbers of sounds, to learn from and to test on."""

    train: int
    test: int


def make_features(context: StageContext) -> None:
    """The task "features": two stores, of what the ears make of the sounds of each split."""
    stage = context.stage
    options = read_dataclass(FeaturesOptions, stage.options, f"stages.{stage.name}.options")
    ears = ears_of(context, context.need("ears").name)
    counts: dict[Split, int] = {"test": options.test, "train": options.train}
    for split, count in counts.items():
        heard = HeardSounds(Clips(context.need("spoken") / split), stage.seed, split)
        compute_features(context.folder / split, ears, feature_plan(context, heard, count))
        print(f"{stage.name}: {split} {count} sounds", flush=True)
    (context.folder / "final.json").write_text(json.dumps({"sounds": counts}))


def feature_plan(context: StageContext, heard: HeardSounds, count: int) -> FeaturePlan:
    """The plan of a store: log-mels by the recipe's own front end."""
    inputs = inputs_for(context.recipe.model.thinker.audio)
    return FeaturePlan(count, heard.digest, lambda n: log_mel(heard.samples(n), inputs), heard.about)


# ---------------------------------------------------------------- spelling


@dataclass(frozen=True)
class LettersOptions:
    """start: the stage whose ears are taught; evaluated: held-out clips."""

    start: str
    evaluated: int = 300


SpelledClip = tuple[Tensor, str]  # the frozen ears' features (A, D) of a clip, and the text that it says


def spelled_clips(bank: Bank, numbers: Sequence[int]) -> list[SpelledClip]:
    """Spoken clips of a bank, by number."""
    return [(bank.store[n], bank.said(n).text) for n in numbers]


class LettersTask(Task[list[SpelledClip]]):
    """CTC on spoken questions over frozen features: only the projection and the head of letters learn."""

    def __init__(self, context: StageContext):
        self.stage = context.stage
        self.options = read_dataclass(LettersOptions, self.stage.options, f"stages.{self.stage.name}.options")
        bank = bank_of(context, "train")
        held_out = bank_of(context, "test")
        if bank is None or held_out is None:
            raise ConfigError(f"stage {self.stage.name!r} needs a stage with task 'features'; name it under needs")
        self.bank = bank
        self.held_out = held_out
        self.ears = ears_of(context, self.options.start)
        self.ears.requires_grad_(False)
        self.ears.proj.requires_grad_(True)
        torch.manual_seed(self.stage.seed)
        self.letters = nn.Linear(self.ears.cfg.output_dim, len(LETTERS) + 1)
        self.modules = {"thinker": nn.ModuleDict({"audio": self.ears}), "letters": self.letters}
        self.clips = bank.speech()

    def batch(self, step: int) -> list[SpelledClip]:
        drawn = np.random.default_rng([self.stage.seed, step]).integers(len(self.clips), size=self.stage.batch)
        return spelled_clips(self.bank, [self.clips[i] for i in drawn])

    def held_out_batch(self) -> list[SpelledClip]:
        return spelled_clips(self.held_out, self.held_out.speech()[: self.stage.batch])

    def loss(self, batch: list[SpelledClip], rng: torch.Generator) -> tuple[Tensor, Metrics]:
        rows = self.ears.project([features for features, _ in batch])
        loss = ctc_loss(self.letters, rows, [spell(text) for _, text in batch])
        return loss, {"ctc": float(loss.detach()), "units": sum(map(len, rows)) / 25}

    def evaluate(self) -> Metrics:
        """Character errors per character on held-out clips, distorted as in training."""
        clips = spelled_clips(self.held_out, self.held_out.speech()[: self.options.evaluated])
        rows = ((self.ears.project([features])[0], text) for features, text in clips)
        return {"cer": character_errors(self.letters, rows)}
