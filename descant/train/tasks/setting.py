"""The start of the trainers of understanding: the Thinker, its tokenizer and inputs, and the spoken questions."""

from __future__ import annotations

import torch

from descant.model.thinker import Thinker
from descant.nn.init import init_normal
from descant.train.examples import ExampleEncoder
from descant.train.loop import StageContext
from descant.train.nano.inputs import NANO_INPUTS, nano_tokenizer
from descant.train.nano.questions import Clips


def new_thinker(context: StageContext) -> Thinker:
    """The recipe's Thinker with fresh weights, the same for every stage and seed."""
    torch.manual_seed(0)
    thinker = Thinker(context.recipe.model.thinker)
    init_normal(thinker)
    return thinker


def encoder_of(context: StageContext) -> ExampleEncoder:
    return ExampleEncoder(nano_tokenizer(), NANO_INPUTS, context.recipe.model.thinker)


def clips_of(context: StageContext, name: str) -> Clips | None:
    """The spoken questions that a needed stage made, or None where no such stage is needed."""
    for need in context.stage.needs:
        if context.recipe.stage(need).task == "questions":
            return Clips(context.runs / need / name)
    return None
