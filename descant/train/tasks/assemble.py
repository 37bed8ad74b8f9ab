"""The finished stages of a recipe as one model folder in the official layout, with cards made from their records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from descant.errors import ConfigError
from descant.export.checkpoint import save_checkpoint
from descant.export.tokenizer import byte_tokenizer, write_tokenizer
from descant.train.loop import StageContext, load_module
from descant.train.nano.cards import data_card, model_card
from descant.train.nano.inputs import NANO_WORDS, inputs_for
from descant.train.recipe import read_dataclass
from descant.types import Sampling, Voice
from descant.weights.checkpoint import Checkpoint
from descant.weights.generation import GenerationDefaults, default_generation
from descant.weights.parts import build_parts


@dataclass(frozen=True)
class AssembleOptions:
    """parts: module of the model ("thinker", "talker", "dit", "vocoder") -> the stage that trained it last.

    voice, bos_token: the speaker that the stages were trained on. decoding: changes to the engine's presets by latency.
    """

    parts: Mapping[str, str]
    voice: str
    bos_token: int
    decoding: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    text_max_tokens: int = 200
    speech_max_tokens: int = 600


def assemble(context: StageContext) -> None:
    """Write the model folder ``runs/<stage>/model``: float16 weights, configs, tokenizer, the voice and two cards.

    What a person wrote into ``runs/notes.md`` about the run goes into the model card.
    """
    options = read_dataclass(AssembleOptions, context.stage.options, f"stages.{context.stage.name}.options")
    folder = context.folder / "model"
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(byte_tokenizer(NANO_WORDS), folder)
    checkpoint = gather(context, options, folder)
    save_checkpoint(checkpoint, folder, torch.float16)
    records = {name: _record(context, name) for name in context.recipe.stages}
    told = context.runs / "notes.md"
    notes = told.read_text() if told.exists() else ""
    (folder / "MODEL_CARD.md").write_text(model_card(context.recipe, checkpoint, records, notes))
    (folder / "DATA_CARD.md").write_text(data_card(context.recipe, context.runs, records))
    (context.folder / "final.json").write_text(json.dumps({"model": str(folder)}))
    print(f"{context.stage.name}: wrote {folder}", flush=True)


def gather(context: StageContext, options: AssembleOptions, folder: Path) -> Checkpoint:
    """The recipe's model with the weights that its stages trained."""
    config = context.recipe.model
    built = build_parts(config)
    if built.talker is None or built.token2wav is None:
        raise ConfigError(f"recipe {context.recipe.name}: a model is assembled with its Talker and Token2Wav")
    modules = {"thinker": built.thinker, "talker": built.talker, "dit": built.token2wav.dit,
               "vocoder": built.token2wav.vocoder}  # fmt: skip
    if set(options.parts) != set(modules):
        raise ConfigError(f"stages.{context.stage.name}.options.parts: expected exactly {', '.join(modules)}")
    for name, module in modules.items():
        module.load_state_dict(load_module(context.runs / options.parts[name], name))
    spoken = load_file(context.runs / options.parts["dit"] / "voice.safetensors")
    voice = Voice(options.voice, options.bos_token, spoken["vector"], spoken["ref_mel"])
    generation = default_generation(config)
    generation = GenerationDefaults(
        text=Sampling(max_tokens=options.text_max_tokens),
        speech=Sampling(max_tokens=options.speech_max_tokens),  # greedy: best with a teacher that never varies
        stop_ids=generation.stop_ids,
        stop_codes=generation.stop_codes,
        suppressed_codes=generation.suppressed_codes,
        overrides=options.decoding,
    )
    voices = {voice.name: voice}
    inputs = inputs_for(config.thinker.audio)
    return Checkpoint(config, inputs, generation, built.thinker, built.talker, built.token2wav, voices, folder)


def _record(context: StageContext, name: str) -> dict[str, Any]:
    """The record that a stage wrote about itself; empty where it has not run."""
    path = context.runs / name / "final.json"
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return record
