"""Row: decode steps a second of the Thinker and of the Talker, beside the bandwidth of the memory.

A step reads every weight once and does next to nothing with it, so the memory decides: the share of its bandwidth says
how much a step wastes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from descant.bench.harness import Bench, BenchLine, Target, figure_line, interleave, median, rate_line
from descant.bench.reference import Reference
from descant.bench.shapes import bench_models, prepared_voice, random_parts, random_prompt, random_voice, request
from descant.engine.limits import most_tokens
from descant.engine.models import Models, new_stores
from descant.engine.stages import Stages
from descant.model.codec import PreparedVoice
from descant.tokens import PromptTokens
from descant.weights.parts import Parts

DECODE_RATE_TARGET = Target("ratio >=", 1.0)
BANDWIDTH_SHARE_TARGET = Target("value >=", 0.85)
PROBES_A_TURN = 3  # readings of the memory a turn

Seconds = tuple[list[float], list[float]]  # of the Thinker's steps, of the Talker's; the probe fills both


def decode(bench: Bench) -> list[BenchLine]:
    """Steps a second at the 0.5B shape, float32, one at a time after the prompt."""
    scale = bench.scale
    parts = random_parts(scale.decode)
    voice = random_voice(scale.decode)
    prompt = random_prompt(scale.prompt)
    reference = None if bench.compare is None else Reference(scale.decode, parts, voice)
    models = bench_models(parts)
    memory = torch.ones(scale.probe)
    prepared = prepared_voice(models, scale.decode)
    sides: dict[str, Callable[[], Seconds]] = {
        "memory": lambda: (probe(memory), []),
        "descant": lambda: step_seconds(models, prompt, prepared, scale.steps),
    }
    if reference is not None:
        sides["transformers"] = partial(reference.step_seconds, prompt, scale.steps)
    taken = interleave(sides, bench.repeats)
    bandwidth = 4 * scale.probe / median([median(turn[0]) for turn in taken["memory"]])
    note = f"float32, {scale.steps} steps after {scale.prompt} tokens, median of {bench.repeats}"
    lines = []
    for place, (name, size) in enumerate(bytes_read(parts).items()):
        ours = 1 / median([median(turn[place]) for turn in taken["descant"]])
        theirs = [median(turn[place]) for turn in taken["transformers"]] if "transformers" in taken else None
        lines.append(
            rate_line(f"{name} decode, 0.5B", ours, 1 / median(theirs) if theirs else None, DECODE_RATE_TARGET, note)
        )
        told = f"{size / 1e6:.0f} MB a step; the memory gave {bandwidth / 1e9:.1f} GB/s in the same run"
        lines.append(
            figure_line(
                f"{name} decode, 0.5B, share of bandwidth", ours * size / bandwidth, BANDWIDTH_SHARE_TARGET, note=told
            )
        )
    return lines


def probe(memory: torch.Tensor) -> list[float]:
    """Seconds to read ``memory`` once, by the plainest reader there is."""
    seconds = []
    for _ in range(PROBES_A_TURN):
        begin = time.perf_counter()
        memory.sum()
        seconds.append(time.perf_counter() - begin)
    return seconds


def step_seconds(models: Models, prompt: PromptTokens, voice: PreparedVoice, steps: int) -> Seconds:
    """Seconds of each decode step: all of the Thinker's, then the Talker's; both prefills are left out."""
    asked = request(prompt, voice, steps + 1, steps + 2)
    stages = Stages(models, new_stores(models, *most_tokens(asked)))
    session = stages.open(asked)
    stages.read({session: session.context.unread})
    thought = [clocked(lambda: stages.think([session])) for _ in range(steps + 1)]
    sung = [clocked(lambda: stages.talk([session])) for _ in range(steps + 1)]
    if session.error is not None:
        raise session.error
    return thought[1:], sung[1:]


def clocked(step: Callable[[], object]) -> float:
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def bytes_read(parts: Parts) -> dict[str, int]:
    """Bytes that a step reads: each weight of the layers and the head; of an embedding table that is no head, a row."""
    assert parts.talker is not None
    thinker = parts.thinker
    talker = parts.talker
    head = thinker.decoder.embed_tokens if thinker.lm_head is None else thinker.lm_head
    return {
        "Thinker": size(thinker.decoder.layers, head),
        "Talker": size(talker.decoder.layers, talker.proj, talker.codec_head),
    }


def size(*modules: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for module in modules for p in module.parameters())
