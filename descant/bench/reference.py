"""The peer: transformers, with the very same weights in memory. Nothing else of descant imports transformers."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from descant.bench.shapes import CODEC_END_ID, CODEC_PAD_ID, STOP_ID
from descant.config import OmniConfig
from descant.errors import OptionError
from descant.export.config import write_config
from descant.tokens import PromptTokens
from descant.types import Voice
from descant.weights.names import OPTIONAL, to_official
from descant.weights.parts import Parts

# official prefix -> where transformers 5 keeps it; the longer ones first
MOVED = (
    ("thinker.audio_tower.", "thinker.model.audio_tower."),
    ("thinker.visual.", "thinker.model.visual."),
    ("thinker.model.", "thinker.model.language_model."),
)


def check_installed() -> None:
    """Raises OptionError where the peer is missing."""
    if find_spec("transformers") is None:
        raise OptionError(
            "--compare transformers needs transformers 5.23 or newer, which is not installed: "
            "pip install 'transformers>=5.23,<6'. Without --compare the bench measures descant alone"
        )


class Reference:
    """transformers' Qwen2_5OmniForConditionalGeneration holding the tensors of ``parts``: shared, not copied."""

    def __init__(self, config: OmniConfig, parts: Parts, voice: Voice, device: torch.device | None = None):
        check_installed()
        from transformers import Qwen2_5OmniConfig, Qwen2_5OmniForConditionalGeneration
        from transformers.utils import logging

        logging.set_verbosity_error()
        with tempfile.TemporaryDirectory() as folder:
            write_config(config, folder)
            theirs = Qwen2_5OmniConfig.from_pretrained(folder)
        self.device = device or torch.device("cpu")
        with self.device:
            self.model: Any = Qwen2_5OmniForConditionalGeneration(theirs).eval()
        self.model.load_state_dict(their_names(parts, set(self.model.state_dict())), strict=True, assign=True)
        self.model.requires_grad_(False)
        self.model.speaker_map[voice.name] = {
            "bos_token": voice.bos_token,
            "cond": voice.vector[None].to(self.device),
            "ref_mel": voice.ref_mel[None].to(self.device),
        }
        self.voice = voice.name

    def answer(self, prompt: PromptTokens, words: int, codes: int) -> tuple[list[int], int]:
        """The whole greedy answer, (text ids, samples); transformers has no way to give a part of it sooner."""
        sequences, wave = self.model.generate(
            input_ids=prompt.ids[None].to(self.device),
            attention_mask=torch.ones_like(prompt.ids)[None].to(self.device),
            speaker=self.voice,
            thinker_max_new_tokens=words,
            thinker_eos_token_id=STOP_ID,
            talker_max_new_tokens=codes,
            talker_do_sample=False,
            talker_eos_token_id=[CODEC_PAD_ID, CODEC_END_ID],
        )
        return sequences[0, len(prompt.ids) :].tolist(), wave.numel()

    def step_seconds(self, prompt: PromptTokens, steps: int) -> tuple[list[float], list[float]]:
        """Seconds from one decode step's begin to the next's, of the Thinker and of the Talker, inside ``generate``."""
        with stamped(self.model.thinker) as thought, stamped(self.model.talker) as sung:
            self.answer(prompt, steps + 2, steps + 2)  # the first is the prefill, the last has no successor
        return gaps(thought[1:]), gaps(sung[1:])


def their_names(parts: Parts, wanted: set[str]) -> dict[str, Tensor]:
    """Our tensors under the names of transformers 5. What it computes for itself is left out."""
    found: dict[str, Tensor] = {}
    for ours, tensor in parts.tensors().items():
        official = to_official(ours)
        if official is None:
            raise OptionError(f"{ours} has no official name: this model cannot be given to transformers")
        old, new = next(((a, b) for a, b in MOVED if official.startswith(a)), ("", ""))
        name = new + official.removeprefix(old)
        if name in wanted or not OPTIONAL.fullmatch(ours):
            found[name] = tensor
    if parts.thinker.lm_head is None:
        found["thinker.lm_head.weight"] = parts.thinker.decoder.embed_tokens.weight
    return found


@contextmanager
def stamped(module: torch.nn.Module) -> Iterator[list[float]]:
    """The times at which ``module`` begins a forward pass."""
    stamps: list[float] = []

    def stamp(module: torch.nn.Module, args: tuple[Tensor, ...]) -> None:
        stamps.append(time.perf_counter())

    handle = module.register_forward_pre_hook(stamp)
    try:
        yield stamps
    finally:
        handle.remove()


def gaps(stamps: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(stamps)]
