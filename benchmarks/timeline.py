"""One spoken turn on nano, on one clock: microphone, encoders, reading, text, codes, sound.

    python benchmarks/timeline.py [FILE.svg] [--trace FILE.json]      benchmarks/results/timeline.svg if left out

A picture is attached, then the demo's question is spoken between two pauses, in real time, in pieces of 20 ms. What is
drawn is what happened: the engine's stages and the encoders are clocked from outside, the events as their reader got
them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from descant.bench.svg import FAINT, GOOD, PLAIN, SHORT, area, bar, document, text, upright
from descant.engine.engine import Engine
from descant.engine.limits import Limits
from descant.engine.models import Models
from descant.engine.session import Session
from descant.engine.worker import EngineWorker
from descant.inputs.audio_file import decode_wav
from descant.omni import load
from descant.types import AudioChunk, Budget, Finished, Image, TextDelta
from descant.weights.fetch import MODELS_FOLDER

HERE = Path(__file__).resolve().parent
QUESTION, PICTURE = MODELS_FOLDER / "demo" / "question.wav", MODELS_FOLDER / "demo" / "stars.png"
RATE, PIECE = 16000, 320  # Hz; samples in 20 ms
BEFORE, AFTER = 1.2, 0.4  # seconds of a quiet room around the question
QUIET = 1e-3
WIDTH, LEFT, RIGHT, TOP, LANE = 960, 150, 20, 64, 34  # pixels
TRIFLE = 5e-4  # seconds: a stage that only looked

Samples = npt.NDArray[np.float32]


@dataclass
class Trace:
    """Seconds from the first piece of sound on. spans: lane -> when work went on; texts and sounds: when each came."""

    spans: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    asked: float = 0.0  # when the question was over
    texts: list[tuple[float, str]] = field(default_factory=list)
    sounds: list[tuple[float, int]] = field(default_factory=list)  # and how many samples
    heard: list[float] = field(default_factory=list)  # loudness of each 20 ms of the question
    said: list[float] = field(default_factory=list)  # and of the answer
    answer: str = ""

    def add(self, lane: str, begin: float, end: float) -> None:
        if end - begin > TRIFLE:
            self.spans.setdefault(lane, []).append((begin, end))


LANES = {
    "microphone": SHORT,
    "encoders": PLAIN,
    "reading": PLAIN,
    "text": GOOD,
    "codes": GOOD,
    "codes to sound": GOOD,
    "loudspeaker": SHORT,
}
STAGES = {"read": "reading", "think": "text", "talk": "codes", "decode": "codes to sound"}


class WatchedWorker(EngineWorker):
    """A worker whose stages are written down."""

    def __init__(self, models: Models, limits: Limits, clock: Callable[[], float], trace: Trace):
        super().__init__(models, limits)
        self._clock, self._trace = clock, trace

    def _timed(self, stage: str, numbers: Sequence[int], act: Callable[[Sequence[Session]], object]) -> None:
        begin = self._clock()
        super()._timed(stage, numbers, act)
        self._trace.add(STAGES[stage], begin, self._clock())


def watch(module: torch.nn.Module, lane: str, clock: Callable[[], float], trace: Trace) -> None:
    """Write down when a part of the model works."""
    began: list[float] = []
    module.register_forward_pre_hook(lambda *given: began.append(clock()))
    module.register_forward_hook(lambda *given: trace.add(lane, began.pop(), clock()))


def question() -> Samples:
    """The demo's question in a quiet room, (W,) at 16 kHz."""
    said = decode_wav(QUESTION.read_bytes(), RATE, Budget())
    assert said is not None
    room = np.random.default_rng(0)
    whole = np.concatenate([np.zeros(round(BEFORE * RATE)), said, np.zeros(round(AFTER * RATE))])
    return (whole + QUIET * room.standard_normal(len(whole))).astype(np.float32)


def record() -> Trace:
    """Ask, and write down what happens."""
    torch.set_num_threads(1)  # the matrices of nano are small
    trace, start = Trace(), [time.perf_counter()]
    omni, samples = load("nano"), question()

    def clock() -> float:
        return time.perf_counter() - start[0]

    omni.engine.close()
    omni.engine = Engine(omni.models)
    omni.engine.worker = WatchedWorker(omni.models, omni.engine.limits, clock, trace)
    omni.engine._lock = omni.engine.worker.lock
    for warm in (True, False):
        if not warm:
            for encoder in (omni.models.thinker.audio, omni.models.thinker.vision):
                watch(encoder, "encoders", clock, trace)
        with omni.session(seed=0) as session:
            session.add(Image(str(PICTURE)))
            time.sleep(0.5)
            trace.spans.clear()
            start[0] = time.perf_counter()
            for place in range(0, len(samples), PIECE):
                time.sleep(max(0.0, (place + PIECE) / RATE - clock()))  # a piece is there when it has been spoken
                session.push_audio(samples[place : place + PIECE], RATE)
            trace.asked = clock()
            answer = session.respond()
            trace.texts, trace.sounds, trace.said = [], [], []
            for event in answer:
                if isinstance(event, TextDelta):
                    trace.texts.append((clock(), event.text))
                elif isinstance(event, AudioChunk):
                    trace.sounds.append((clock(), len(event.samples)))
                    trace.said += loudness(event.samples, event.rate)
                elif isinstance(event, Finished):
                    trace.answer = event.text
    omni.engine.close()
    trace.heard = loudness(samples, RATE)
    return trace


def loudness(samples: Samples, rate: int) -> list[float]:
    """The largest sample of each 20 ms."""
    step = rate // 50
    return [float(np.abs(samples[place : place + step]).max()) for place in range(0, len(samples), step)]


def heard_from(trace: Trace, rate: int = 24000) -> list[float]:
    """When each 20 ms of the answer is heard by somebody who plays it as it comes."""
    times, free, step = list[float](), 0.0, 1 / 50
    for at, count in trace.sounds:
        begin = max(free, at)
        times += [begin + step * place for place in range(round(count / rate / step))]
        free = begin + count / rate
    return times


def draw(trace: Trace) -> str:
    """The whole picture."""
    played = heard_from(trace)
    last = max(played, default=trace.asked) + 0.1
    scale, bottom = (WIDTH - LEFT - RIGHT) / last, TOP + LANE * len(LANES)

    def x(seconds: float) -> float:
        return LEFT + seconds * scale

    out = [text(10, 22, "one spoken turn, live", size=16), text(10, 40, about(trace), colour=FAINT)]
    for second in range(int(last) + 1):
        out += [
            upright(x(second), TOP, bottom, colour="#e3e6ea"),
            text(x(second), bottom + 16, f"{second} s", anchor="middle", colour=FAINT),
        ]
    for place, (lane, colour) in enumerate(LANES.items()):
        y = TOP + LANE * place
        out.append(text(LEFT - 12, y + 21, lane, anchor="end"))
        out += [
            bar(x(begin), y + 7, max(0.8, (end - begin) * scale), 20, colour, round_by=0)
            for begin, end in trace.spans.get(lane, ())
        ]
    ticks = [place / 50 for place in range(len(trace.heard))]
    out += wave(ticks, trace.heard, x, TOP + LANE / 2, SHORT)
    out += wave(played, trace.said, x, bottom - LANE / 2, SHORT)
    out.append(upright(x(trace.asked), TOP - 8, bottom, dashed=True))
    out.append(text(x(trace.asked), TOP - 12, "the question is over", anchor="middle"))
    if trace.texts:
        written = max(end for _, end in trace.spans.get("text", [(0.0, trace.texts[-1][0])]))
        out.append(text(x(written) + 10, TOP + LANE * list(LANES).index("text") + 21, f'"{trace.answer}"'))
    return document(WIDTH, bottom + 28, out)


def wave(
    times: Sequence[float], loud: Sequence[float], x: Callable[[float], float], y: float, colour: str
) -> list[str]:
    """Loudness as a shape around the line at y."""
    if not loud:
        return []
    most = max(loud)
    above = [(x(at), y - 13 * value / most - 0.5) for at, value in zip(times, loud, strict=False)]
    return [area([*above, *((at, 2 * y - over) for at, over in reversed(above))], colour)]


def about(trace: Trace) -> str:
    """The two figures that a user feels."""
    told = []
    if trace.texts:
        told.append(f"first text {1000 * (trace.texts[0][0] - trace.asked):.0f} ms")
    if trace.sounds:
        told.append(f"first sound {1000 * (trace.sounds[0][0] - trace.asked):.0f} ms")
    return f"nano, one core; {', '.join(told)} after the question" if told else "nano, one core; it said nothing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path, nargs="?", default=HERE / "results" / "timeline.svg")
    parser.add_argument("--trace", type=Path, help="keep what was drawn as JSON")
    given = parser.parse_args()
    trace = record()
    given.picture.write_text(draw(trace), encoding="utf-8")
    if given.trace is not None:
        given.trace.write_text(json.dumps(asdict(trace)), encoding="utf-8")
    print(f"{about(trace)}; {trace.answer!r}; picture: {given.picture}")


if __name__ == "__main__":
    main()
