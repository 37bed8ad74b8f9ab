"""The start of the trainers of understanding: the Thinker, its tokenizer and inputs, and the spoken questions."""

from __future__ import annotations

import torch

from descant.inputs.prompt import PromptBuilder
from descant.model.thinker import Thinker
from descant.nn.init import init_normal
from descant.train.ears import CachedPrompts, FeatureStore
from descant.train.examples import ExampleEncoder
from descant.train.loop import StageContext
from descant.train.nano.domain import Split
from descant.train.nano.inputs import inputs_for, nano_tokenizer
from descant.train.nano.mixture import Source
from descant.train.nano.questions import Clips
from descant.train.nano.spoken import Bank
from descant.train.nano.wide import WideSource


def new_thinker(context: StageContext) -> Thinker:
    """The recipe's Thinker with fresh weights, the same for every stage and seed."""
    torch.manual_seed(0)
    thinker = Thinker(context.recipe.model.thinker)
    init_normal(thinker)
    return thinker


def encoder_of(context: StageContext, cached: bool = False) -> ExampleEncoder:
    """The means of laying out examples; cached: sounds come with their features."""
    cfg = context.recipe.model.thinker
    builder = CachedPrompts if cached else PromptBuilder
    return ExampleEncoder(nano_tokenizer(), inputs_for(cfg.audio), cfg, builder)


def clips_of(context: StageContext, name: str) -> Clips | None:
    """The spoken questions that a needed stage made, or None where no such stage is needed."""
    for need in context.stage.needs:
        if context.recipe.stage(need).task == "questions":
            return Clips(context.runs / need / name)
    return None


def bank_of(context: StageContext, split: Split) -> Bank | None:
    """The sounds whose features a needed stage computed, or None where no such stage is needed."""
    for need in context.stage.needs:
        stage = context.recipe.stage(need)
        if stage.task == "features":
            spoken = next(name for name in stage.needs if context.recipe.stage(name).task == "spoken")
            width = context.recipe.model.thinker.audio.d_model
            return Bank(FeatureStore(context.runs / need / split, width), Clips(context.runs / spoken / split))
    return None


def examples_of(context: StageContext, split: Split, wide: bool, shuffled: bool = False) -> Source | WideSource:
    """Where a stage draws its examples: the whole domain (wide), or the first wording of it."""
    if wide:
        return WideSource(split, bank_of(context, split))
    return Source(split, clips_of(context, split), distorted=split == "train", shuffled=shuffled)
