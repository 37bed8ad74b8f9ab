"""What each setting of the codec costs, and what it gives: real codes of a trained model, heard by an independent ear.

    python benchmarks/codec_quality.py --codes out/codes.json --json benchmarks/results/codec.json

The codes are those that the model's own Talker gives for held-out questions; they are drawn once, kept in the file, and
decoded at every setting with the same noise. For each setting:

difference   mean |log-mel| (natural log of the amplitude) from one RK4 solve of the whole utterance; ``opening``: the
             same over the first block, where a first window without look-ahead differs most
word error   of whisper-tiny.en against the text that the model wrote; ``--hear`` chooses whose
wait         codes before the first sound, and how much sound these codes are
evaluations  of the DiT for a second of sound; ``frames``: mel frames through it, a frame of sound each
cost         seconds of work against balanced's, median of interleaved turns
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from descant.bench.streams import finish, mel_windowed, push
from descant.config import VocosConfig
from descant.engine.boundary import each
from descant.engine.limits import most_tokens
from descant.engine.models import new_stores
from descant.engine.session import Phase, Request
from descant.engine.stages import Stages
from descant.evals.report import SPEECH_TASKS
from descant.evals.speech import WhisperEar, word_error
from descant.evals.tasks import TaskRow, typed_item
from descant.model.codec import PreparedVoice, Token2Wav, block_noise
from descant.model.ode import Solver
from descant.omni import Omni, load
from descant.types import Decoding

FRAME_S = 0.01  # seconds of a mel frame
SAMPLE_RATE = 24000  # Hz
SEED = 0  # of the noise, everywhere
HELD_OUT = TaskRow("codec", SPEECH_TASKS, typed_item, 0, None)


@dataclass(frozen=True)
class Answer:
    """What the model wrote, and the codes in which it said it."""

    text: str
    codes: list[int]


def spoken(omni: Omni, count: int) -> list[Answer]:
    """``count`` held-out questions of the eight tasks in turn, each with its answer."""
    answers = []
    for item in HELD_OUT.items(count, seed=0):
        asked = Request(omni._prompt([item.question], {}), omni._settings({"seed": 0}))
        stages = Stages(omni.models, new_stores(omni.models, *most_tokens(asked)))
        session = stages.open(asked)
        assert session.speech is not None
        each([session], stages.read)
        while session.error is None and (session.phase is Phase.THINKING or session.speech.singing):
            stages.think([session])
            stages.talk([session])
        answers.append(Answer(omni.models.tokenizer.decode(session.text.ids), list(session.speech.codes)))
    return answers


def settings(omni: Omni) -> dict[str, Decoding]:
    """The three presets, and one change at a time from balanced."""
    named = {name: omni._decoding(name) for name in ("low", "balanced", "quality")}
    base = named["balanced"]
    solvers: dict[Solver, tuple[int, ...]] = {"euler": (3, 4, 5, 7, 10), "midpoint": (3, 4, 5), "rk4": (2, 4, 10)}
    fields = {f"{solver} {p}": replace(base, solver=solver, points=p) for solver, at in solvers.items() for p in at}
    firsts = {f"first {n} + {m}": replace(base, first=n, first_ahead=m) for n in (1, 2) for m in (0, 1)}
    nows = {f"now {n}": replace(base, now=n) for n in (1, 2, 3, 4)}
    aheads = {f"ahead {n}": replace(base, ahead=n) for n in (0, 1, 2)}
    return {**named, **fields, **firsts, **nows, **aheads, "not early": replace(base, early=False)}


# ---------------------------------------------------------------- what is measured


@dataclass(frozen=True)
class Line:
    """One setting; see the head of this file. cost: against balanced. errors of ``words`` words; None: not heard."""

    name: str
    decoding: Decoding
    difference: float
    opening: float
    wait_codes: int
    wait_ms: float
    evaluations: float
    frames: float
    cost: float
    errors: int | None = None
    words: int | None = None


class Counter:
    """Evaluations of a DiT and the frames they saw, until ``stop``."""

    def __init__(self, net: Token2Wav) -> None:
        self.calls, self.frames = 0, 0
        self.hook = net.dit.input_embed.register_forward_hook(self.count)

    def count(self, _: object, inputs: tuple[Tensor, ...], __: object) -> None:
        self.calls += 1
        self.frames += inputs[0].shape[1]

    def stop(self) -> None:
        self.hook.remove()


@dataclass(frozen=True)
class Rig:
    """The codec, the voice, the answers' codes, and the mel of some of them by one RK4 solve of the whole, all once."""

    net: Token2Wav
    voice: PreparedVoice
    codes: list[Tensor]
    truth: list[Tensor]

    def sound(self, codes: Tensor, d: Decoding) -> Tensor:
        samples, state = push(self.net, self.net.start(self.voice, SEED, d), codes)
        return torch.cat([samples, finish(self.net, state)[0]])

    def wait(self, d: Decoding) -> int:
        """Codes before the first sound of an endless answer."""
        state, count = self.net.start(self.voice, SEED, d), 0
        while True:
            samples, state = push(self.net, state, [1])
            count += 1
            if len(samples):
                return count


def rig(omni: Omni, answers: Sequence[Answer], solved: int) -> Rig:
    net, voice = omni.models.token2wav, omni.models.voices[omni.voices[0]]
    assert net is not None
    exact, cfg = omni._decoding("quality"), net.cfg.dit
    codes = [torch.tensor(a.codes) for a in answers]
    truth = [
        net.mel_whole(c, voice, block_noise(SEED, 0, len(c) * cfg.repeats, cfg.block_size, cfg.mel_dim), exact)
        for c in codes[:solved]
    ]
    return Rig(net, voice, codes, truth)


def mel_unit(net: Token2Wav) -> float:
    """What a difference of 1 in the model's mel is in natural log amplitude."""
    return net.cfg.vocoder.mel_std if isinstance(net.cfg.vocoder, VocosConfig) else 1.0


def measure(name: str, d: Decoding, rig: Rig, unit: float) -> Line:
    """All but the ear and the cost."""
    counter = Counter(rig.net)
    mels = [mel_windowed(rig.net, c, rig.voice, SEED, d) for c in rig.codes[: len(rig.truth)]]
    counter.stop()
    frames, block = sum(mel.shape[1] for mel in mels), rig.net.cfg.dit.block_size
    gaps = [(mel - true).abs() * unit for mel, true in zip(mels, rig.truth, strict=True)]
    wait = rig.wait(d)
    return Line(
        name,
        d,
        difference=float(torch.cat(gaps, dim=1).mean()),
        opening=float(torch.cat([gap[:, :block] for gap in gaps], dim=1).mean()),
        wait_codes=wait,
        wait_ms=1000 * wait * rig.net.cfg.dit.repeats * FRAME_S,
        evaluations=counter.calls / (frames * FRAME_S),
        frames=counter.frames / frames,
        cost=1.0,
    )


def costs(rig: Rig, lines: Sequence[Line], base: Decoding, turns: int) -> list[float]:
    """Each setting right after balanced, on the same answer; the median of the ratios of all turns."""

    def seconds(codes: Tensor, d: Decoding) -> float:
        begin = time.perf_counter()
        rig.sound(codes, d)
        return time.perf_counter() - begin

    ratios: list[list[float]] = [[] for _ in lines]
    for codes in rig.codes[:turns]:
        for line, kept in zip(lines, ratios, strict=True):
            mine = seconds(codes, line.decoding)
            kept.append(mine / seconds(codes, base))
    return [statistics.median(kept) for kept in ratios]


def heard(line: Line, rig: Rig, answers: Sequence[Answer], ear: WhisperEar) -> Line:
    pairs = [
        (a.text, ear.hear(rig.sound(codes, line.decoding).numpy(), SAMPLE_RATE))
        for a, codes in zip(answers, rig.codes, strict=True)
    ]
    error = word_error(pairs)
    return replace(line, errors=error.errors, words=error.words)


# ---------------------------------------------------------------- what is shown


def markdown(lines: Sequence[Line]) -> str:
    rows = ["| setting | difference | opening | word error | wait | evaluations/s | frames | cost |"]
    rows.append("|---|--:|--:|--:|--:|--:|--:|--:|")
    for line in lines:
        ear = "" if line.words is None or line.errors is None else f"{100 * line.errors / line.words:.1f} %"
        rows.append(
            f"| {line.name} | {line.difference:.4f} | {line.opening:.4f} | {ear} | "
            f"{line.wait_codes} codes, {line.wait_ms:.0f} ms | {line.evaluations:.0f} | {line.frames:.1f} | "
            f"{line.cost:.2f} |"
        )
    return "\n".join(rows)


def rounded(line: Line) -> dict[str, Any]:
    """What is kept of a line: four places, more is noise."""
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(line).items()}


def known_codes(path: Path | None, omni: Omni, count: int) -> list[Answer]:
    """The answers of the file; drawn, and kept there, when it is not there yet."""
    if path is not None and path.exists():
        return [Answer(**one) for one in json.loads(path.read_text())][:count]
    answers = spoken(omni, count)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([asdict(a) for a in answers]))
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--codes", type=Path, help="a file for the answers and their codes; made when missing")
    parser.add_argument("--answers", type=int, default=48)
    parser.add_argument("--solved", type=int, default=16, help="of these, how many mels are compared")
    parser.add_argument("--turns", type=int, default=9, help="interleaved turns of the cost (default 9)")
    parser.add_argument("--only", nargs="+", help="names of settings; left out: all")
    parser.add_argument("--hear", nargs="*", help="names of settings for the ear; left out: all; empty: none")
    parser.add_argument("--json", type=Path, help="write the lines there as well")
    args = parser.parse_args()
    omni = load(args.model)
    answers = known_codes(args.codes, omni, args.answers)
    made = rig(omni, answers, args.solved)
    unit = mel_unit(made.net)
    chosen = {name: d for name, d in settings(omni).items() if args.only is None or name in args.only}
    ear, lines = None if args.hear == [] else WhisperEar(), []
    for name, d in chosen.items():
        line = measure(name, d, made, unit)
        if ear is not None and (args.hear is None or name in args.hear):
            line = heard(line, made, answers, ear)
        lines.append(line)
        print(markdown([line]).splitlines()[-1], flush=True)
    ratios = costs(made, lines, omni._decoding("balanced"), args.turns)
    lines = [replace(line, cost=ratio) for line, ratio in zip(lines, ratios, strict=True)]
    print("\n" + markdown(lines))
    if args.json is not None:
        seconds = sum(mel.shape[1] for mel in made.truth) * FRAME_S
        record = {
            "model": args.model,
            "answers": len(answers),
            "solved": len(made.truth),
            "seconds": seconds,
            "rows": [rounded(line) for line in lines],
        }
        args.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
