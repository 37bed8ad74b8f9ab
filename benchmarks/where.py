"""Where the time of an answer goes, by kind of operation: the profile behind the bench's misses.

    python benchmarks/where.py [--threads 2] [--out FILE.md]           benchmarks/results/where.md if left out

The shapes are the bench's, with random weights: a decode step of either decoder at bench-tiny and at 0.5B, and the
sound of bench-tiny's 100 codes at balanced. Each is timed by itself (median), then once more under torch's profiler.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from unittest.mock import patch

import torch
from torch.profiler import ProfilerActivity, profile

from descant.bench.decode import clocked
from descant.bench.harness import threads
from descant.bench.shapes import FULL, bench_models, prepared_voice, random_parts, random_prompt, request
from descant.bench.streams import finish, mel_windowed, push
from descant.config import OmniConfig
from descant.engine.boundary import each
from descant.engine.limits import most_tokens
from descant.engine.models import new_stores
from descant.engine.stages import Stages
from descant.model import vocoding
from descant.model.codec import decoding_for
from descant.model.vocoder import BigVGAN
from descant.model.vocoding import VocoderCall, call_vocoder
from descant.model.vocos import Vocos

OUT = Path(__file__).resolve().parent / "results" / "where.md"
STEPS, WARM, TURNS = 20, 5, 5
KINDS: Mapping[str, tuple[str, ...]] = {  # the beginnings of operators' names; the first kind that fits
    "products": ("mkldnn::_linear", "aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "convolutions": ("aten::mkldnn_convolution", "aten::_convolution", "aten::_slow_conv", "aten::slow_conv"),
    "attention": ("aten::_scaled_dot_product", "aten::scaled_dot_product"),
    "sines": ("aten::sin",),
    "other operations": ("aten::",),
}
BETWEEN = "between them"

Milliseconds = dict[str, float]  # of each kind


def decoders(config: OmniConfig) -> dict[str, tuple[float, Milliseconds]]:
    """A step of the Thinker and one of the Talker."""
    models, most = bench_models(random_parts(config)), (TURNS + 1) * STEPS + WARM
    asked = request(random_prompt(FULL.prompt), prepared_voice(models, config), most, most)
    stages = Stages(models, new_stores(models, *most_tokens(asked)))
    session = stages.open(asked)
    each([session], stages.read)
    for step in (stages.think, stages.talk):
        for _ in range(WARM):
            step([session])
    return {
        "Thinker": measured(lambda: stages.think([session]), STEPS),
        "Talker": measured(lambda: stages.talk([session]), STEPS),
    }


def sound(config: OmniConfig) -> dict[str, tuple[float, Milliseconds]]:
    """All windows of the bench's codes at balanced: through the DiT, and the same through the BigVGAN."""
    models, balanced = bench_models(random_parts(config)), decoding_for("balanced")
    net, voice = models.token2wav, prepared_voice(models, config)
    assert net is not None
    codes = torch.randint(0, 8192, (FULL.codes,), generator=torch.Generator().manual_seed(0))
    asked: list[Sequence[VocoderCall]] = []

    def sung(vocoder: BigVGAN | Vocos, songs: Sequence[VocoderCall]) -> list[torch.Tensor]:
        asked.append(songs)
        return call_vocoder(vocoder, songs)

    with patch.object(vocoding, "call_vocoder", sung):
        _, state = push(net, net.start(voice, 0, balanced), codes)
        finish(net, state)
    return {
        "DiT": measured(lambda: mel_windowed(net, codes, voice, 0, balanced), 1),
        "BigVGAN": measured(lambda: [call_vocoder(net.vocoder, songs) for songs in asked], 1),
    }


def measured(act: Callable[[], object], times: int) -> tuple[float, Milliseconds]:
    """Milliseconds of one ``act``: the median by itself; by kind, the mean of ``times`` under the profiler."""
    seconds = [clocked(act) for _ in range(TURNS * times)]
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        taken = sum(clocked(act) for _ in range(times))
    kinds = dict.fromkeys((*KINDS, BETWEEN), 0.0)
    kinds[BETWEEN] = 1000 * taken / times
    for event in seen.key_averages():
        kind = next((kind for kind, names in KINDS.items() if event.key.startswith(names)), None)
        if kind is not None:
            kinds[kind] += event.self_cpu_time_total / 1000 / times
            kinds[BETWEEN] -= event.self_cpu_time_total / 1000 / times
    return 1000 * statistics.median(seconds), kinds


def table(rows: Mapping[str, tuple[float, Milliseconds]]) -> str:
    lines = [f"| what | alone | profiled | {' | '.join((*KINDS, BETWEEN))} |", "|---" * (len(KINDS) + 4) + "|"]
    for name, (alone, kinds) in rows.items():
        whole = sum(kinds.values())
        shares = " | ".join(f"{100 * part / whole:.0f} %" for part in kinds.values())
        lines.append(f"| {name} | {alone:.1f} ms | {whole:.1f} ms | {shares} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    rows: dict[str, tuple[float, Milliseconds]] = {}
    with threads(args.threads), torch.inference_mode():
        for name, config in {"bench-tiny": FULL.answer, "0.5B": FULL.decode}.items():
            rows |= {f"{decoder}, a step, {name}": found for decoder, found in decoders(config).items()}
        rows |= {f"{part}, {FULL.codes} codes, bench-tiny": found for part, found in sound(FULL.answer).items()}
    args.out.write_text(table(rows))
    print(table(rows), end="")


if __name__ == "__main__":
    main()
