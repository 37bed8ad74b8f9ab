"""One card: the official shapes with random weights on a GPU, beside the goals that real time needs.

Nothing is downloaded. A row is a function ``CardModel -> list[CardLine]``; the goals are those of one H200, and in
brackets of one H100. Seconds are those of the engine's own thread, as its users wait for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from descant.bench import OfficialShape, Peer
from descant.bench.card_lines import (
    CardLine,
    answered,
    card_row,
    copy_bandwidth,
    last_of,
    p95,
    reserved,
    synchronise,
)
from descant.bench.decode import bytes_read, clocked
from descant.bench.harness import median
from descant.bench.live import LiveBench, push_noise, wait
from descant.bench.official import official_config, random_on
from descant.bench.reference import Reference
from descant.bench.shapes import (
    HEARD_RATE_HZ,
    bench_models,
    endless,
    prepared_voice,
    random_prompt,
    random_sound,
    random_voice,
    request,
)
from descant.config import OUTPUT_RATE_HZ, OmniConfig
from descant.engine.engine import Engine
from descant.engine.limits import Limits, most_tokens
from descant.engine.models import Models, new_stores
from descant.engine.session import Request
from descant.engine.stages import Stages
from descant.model.codec import PreparedVoice, decoding_for
from descant.nn.kernels import OPERATIONS, kernel_faults, left_out
from descant.plan import PACE
from descant.types import Audio, Clip, Decoding, Finished, Image, Latency, Part, Video, user

PROBE_BYTES = 1 << 31  # copied to measure the memory; a small card, and tests, take less
FRAME_RATE = 2.0  # frames a second of a video


@dataclass(frozen=True)
class CardScale:
    """The amount that is measured. words, codes: of an answer; steps: decode steps; crowds: answers at once; speaking,
    speaking_s: voices that speak without a pause, and for how long; spoken: seconds of live turns; sound_s, side,
    videos: a long sound, the side of a picture, seconds of videos; probe: bytes that are copied; batches: sessions of
    a decode step; windows: of the codec, timed."""

    words: int = 32
    codes: int = 100
    steps: int = 40
    crowds: tuple[int, ...] = (4, 8, 16, 32, 64)
    speaking: int = 32
    speaking_s: float = 60.0
    spoken: tuple[float, ...] = (5.0, 20.0, 60.0)
    sound_s: float = 30.0
    side: int = 1344
    videos: tuple[float, ...] = (10.0, 60.0)
    probe: int = PROBE_BYTES
    batches: tuple[int, ...] = (1, 16)
    windows: int = 24


@dataclass(frozen=True)
class CardModel:
    """The model on the card: what every row measures."""

    models: Models
    voice: PreparedVoice
    limits: Limits
    scale: CardScale
    sizes: dict[str, int] = field(default_factory=dict)  # bytes that a step of each decoder reads

    def ask(self, codes: int | None = None, latency: Latency = "low", seed: int = 2) -> Request:
        """A spoken answer to a prompt of text, of its own for each seed."""
        made = request(random_prompt(90, seed), self.voice, self.scale.words, codes or self.scale.codes)
        return replace(made, settings=replace(made.settings, decoding=decoding_for(latency)))

    def engine(self) -> Engine:
        """An engine of its own, with its thread."""
        engine = Engine(self.models, self.limits)
        engine.start()
        return engine


def measure_card(
    config: OmniConfig,
    device: torch.device,
    scale: CardScale | None = None,
    compare: Peer | None = None,
    say: Callable[[str], None] = print,
) -> list[CardLine]:
    """All rows, in order; each is said when it is there."""
    scale = scale or CardScale()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    begin = time.perf_counter()
    parts = random_on(config, device, dtype)
    synchronise(device)
    say(f"{sum(parts.counts().values()) / 1e9:.2f} B random weights in {time.perf_counter() - begin:.1f} s")
    reference = None if compare is None else Reference(config, parts, random_voice(config), device)
    sizes = bytes_read(parts)
    models = endless(bench_models(parts))
    tokens = max(scale.crowds) * 8192
    limits = Limits(tokens, tokens, sessions=max(*scale.crowds, scale.speaking) + 1, scheduler=PACE)
    card = CardModel(models, prepared_voice(models, config), limits, scale, sizes)
    lines = []
    for row in (cold_start, decode_steps, windows, answers_alone, crowds, voices_speaking, live_turns, media):
        made = row(card)
        for line in made:
            say(card_row(line))
        lines += made
    for fault in kernel_faults():
        say(fault)
    if reference is not None:
        lines += beside_peer(card, reference, lines)
    return lines


def cold_start(card: CardModel) -> list[CardLine]:
    """The first answer of a process, which finds everything cold, and the second."""
    engine = card.engine()
    device = card.models.thinker.device
    before = reserved(device)
    first, second = (answered(engine, [card.ask()])[0].timings.total_s for _ in range(2))
    engine.close()
    held = (reserved(device) - before) / 2**30
    return [
        CardLine("first answer of a process, whole", first, "s"),
        CardLine("second answer, whole", second, "s"),
        CardLine("memory for graphs, caches and passes", held, "GiB"),
    ]


def decode_steps(card: CardModel) -> list[CardLine]:
    """Decode steps with their draws, alone and of 16 together; the share of what a copy of the memory reaches."""
    bandwidth = copy_bandwidth(card.models.thinker.device, card.scale.probe)
    lines = [CardLine("bandwidth of a copy", bandwidth / 1e9, "GB/s")]
    goals = {("Thinker", 1): "<= 4.0 (5.5)", ("Talker", 16): "<= 1.6"}
    for rows in card.scale.batches:
        for name, taken in zip(("Thinker", "Talker"), batch_seconds(card, rows), strict=True):
            share = 100 * card.sizes[name] / median(taken) / bandwidth
            label = f"{name} step, {rows} together"
            lines.append(CardLine(label, 1e3 * median(taken), "ms", goals.get((name, rows), "")))
            lines.append(CardLine(f"{label}, of the bandwidth", share, "%"))
    with left_out([operation.name for operation in OPERATIONS]):
        for name, taken in zip(("Thinker", "Talker"), batch_seconds(card, 1), strict=True):
            lines.append(CardLine(f"{name} step, by torch's own kernels", 1e3 * median(taken), "ms"))
    return [*lines, CardLine("kernels that torch stands in for", len(kernel_faults()), "", "0")]


def batch_seconds(card: CardModel, rows: int) -> tuple[list[float], list[float]]:
    """Seconds of each step of so many sessions: of the Thinker, then of the Talker. What is captured is captured."""
    steps = card.scale.steps
    asked = [replace_lengths(card.ask(seed=seed), steps + 1, steps + 2) for seed in range(rows)]
    tokens = [rows * most for most in map(max, zip(*map(most_tokens, asked), strict=True))]
    stages = Stages(card.models, new_stores(card.models, tokens[0] + 16 * rows, tokens[1] + 16 * rows))
    sessions = [stages.open(one) for one in asked]
    stages.read({session: session.context.unread for session in sessions})
    thought = [clocked(lambda: stages.think(sessions)) for _ in range(steps + 1)]
    sung = [clocked(lambda: stages.talk(sessions)) for _ in range(steps + 1)]
    for session in sessions:
        if session.error is not None:
            raise session.error
    return thought[steps // 2 :], sung[steps // 2 :]


def replace_lengths(asked: Request, words: int, codes: int) -> Request:
    settings = asked.settings
    text, speech = replace(settings.text, max_tokens=words), replace(settings.speech, max_tokens=codes)
    return replace(asked, settings=replace(settings, text=text, speech=speech))


def windows(card: CardModel) -> list[CardLine]:
    """One window of steady speech, alone and of 8 voices, in both precisions."""
    assert card.models.token2wav is not None
    lines = []
    base = decoding_for("balanced")
    for dial in (replace(base, precision="float32"), replace(base, precision="tf32")):
        for rows in (1, 8):
            label = f"window of {rows} voices, {dial.precision}"
            lines.append(CardLine(label, 1e3 * window_seconds(card, rows, dial), "ms"))
    return lines


def window_seconds(card: CardModel, rows: int, dial: Decoding) -> float:
    """The median of the windows of an utterance once they are as long as they become."""
    token2wav = card.models.token2wav
    assert token2wav is not None
    stages = Stages(card.models, new_stores(card.models, 16, 16))
    count = (card.scale.windows + 4) * dial.now * token2wav.codes_per_block
    states = [token2wav.feed(token2wav.start(card.voice, seed, dial), range(count)) for seed in range(rows)]
    taken: list[float] = []
    while token2wav.due(states[0]) and len(taken) < card.scale.windows:
        begin = time.perf_counter()
        states = [state for _, state in stages.sounds(states)]
        taken.append(time.perf_counter() - begin)
    return median(taken[len(taken) // 2 :])


def answers_alone(card: CardModel) -> list[CardLine]:
    """One answer at a time, at each position of the dial; the second of two that are alike."""
    lines = []
    goals = {"low": "<= 120 (150)", "balanced": "<= 220 (260)", "quality": ""}
    for latency in ("low", "balanced", "quality"):
        engine = card.engine()
        made = [answered(engine, [card.ask(latency=latency, seed=seed)])[0] for seed in range(4)]
        engine.close()
        text, sound, rtf = (median([vars(one.timings)[name] for one in made[1:]]) for name in FIRSTS)
        lines += [
            CardLine(f"first text alone, {latency}", 1e3 * text, "ms", "<= 25 (30)" if latency == "low" else ""),
            CardLine(f"first sound alone, {latency}", 1e3 * sound, "ms", goals[latency]),
            CardLine(f"whole answer alone, {latency}", rtf, "of real time", "<= 0.15" if latency == "balanced" else ""),
        ]
    return lines


FIRSTS = "first_text_s", "first_audio_s", "rtf"


def crowds(card: CardModel) -> list[CardLine]:
    """Many who ask at once, each for another thing."""
    lines = []
    engine = card.engine()
    answered(engine, [card.ask(seed=seed) for seed in range(max(card.scale.crowds))])  # what is captured is captured
    for count in card.scale.crowds:
        begin = time.perf_counter()
        ends = answered(engine, [card.ask(seed=100 + seed) for seed in range(count)])
        took = time.perf_counter() - begin
        lines += crowd_lines(f"{count} at once", ends, took, judged=count == 16)
    engine.close()
    return lines


def crowd_lines(label: str, ends: Sequence[Finished], took: float, *, judged: bool) -> list[CardLine]:
    firsts = [end.timings.first_audio_s or 0.0 for end in ends]
    sound = sum(end.usage.samples for end in ends) / OUTPUT_RATE_HZ
    return [
        CardLine(f"{label}: first sound, median", 1e3 * median(firsts), "ms", "<= 250 (320)" if judged else ""),
        CardLine(f"{label}: first sound, p95", 1e3 * p95(firsts), "ms", "<= 400 (500)" if judged else ""),
        CardLine(f"{label}: sound made", sound / took, "times real time", ">= 40" if judged else ""),
        CardLine(f"{label}: under-runs", sum(end.usage.underruns for end in ends), "", "0" if judged else ""),
    ]


def voices_speaking(card: CardModel) -> list[CardLine]:
    """Voices that speak for a minute, and newcomers who ask meanwhile."""
    token2wav = card.models.token2wav
    assert token2wav is not None
    seconds, voices = card.scale.speaking_s, card.scale.speaking
    codes = round(seconds / token2wav.code_s)
    engine = card.engine()
    answers = [engine.submit(card.ask(codes, "balanced", seed)) for seed in range(voices - 1)]
    newcomers: list[Finished] = []
    until = time.perf_counter() + 0.8 * seconds
    while time.perf_counter() < until:
        newcomers += answered(engine, [card.ask(latency="low", seed=1000 + len(newcomers))])
    ends = [last_of(list(answer)) for answer in answers]
    engine.close()
    firsts = [end.timings.first_audio_s or 0.0 for end in newcomers]
    label = f"{voices} speaking for {seconds:g} s"
    return [
        CardLine(f"{label}: under-runs", sum(end.usage.underruns for end in ends), "", "0"),
        CardLine(f"{label}: a newcomer's first sound, p95", p95(firsts), "s", "<= 0.8"),
    ]


def live_turns(card: CardModel) -> list[CardLine]:
    """The answer to a spoken turn that was read while it came in."""
    lines = []
    live = LiveBench(card.models, card.voice)
    for seconds in card.scale.spoken:
        engine = Engine(card.models, card.limits)
        timings = []
        for turn in range(3):
            with live.session(engine) as session:
                push_noise(engine, session, seconds, seed=turn)
                begin = time.perf_counter()
                timings.append(wait(engine, session.respond(), begin).end.timings)
        text, sound = (1e3 * median([vars(one)[name] for one in timings[1:]]) for name in FIRSTS[:2])
        goals = ("<= 50", "<= 160") if seconds == 20 else ("", "")
        lines += [
            CardLine(f"live turn of {seconds:g} s: first text", text, "ms", goals[0]),
            CardLine(f"live turn of {seconds:g} s: first sound", sound, "ms", goals[1]),
        ]
        engine.close()
    return lines


def media(card: CardModel) -> list[CardLine]:
    """Answers to a long sound, a large picture and videos that come whole."""
    side, lines = card.scale.side, []
    draw = np.random.default_rng(0)

    def clip(seconds: float) -> Video:
        frames = draw.integers(0, 255, (round(FRAME_RATE * seconds), side // 3, side // 2, 3), dtype=np.uint8)
        return Video(Clip(frames, FRAME_RATE, random_sound(seconds)), use_audio=True)

    sound = random_sound(card.scale.sound_s)
    shown: dict[str, Part] = {f"{card.scale.sound_s:g} s of sound": Audio(sound, HEARD_RATE_HZ)}
    shown[f"a picture of {side} x {side}"] = Image(draw.integers(0, 255, (side, side, 3), dtype=np.uint8))
    shown |= {f"{seconds:g} s of video with sound": clip(seconds) for seconds in card.scale.videos}
    builder = LiveBench(card.models, card.voice).builder
    engine = card.engine()
    for what, part in shown.items():
        prompt = builder.build([user(part)], speech=True)
        ends = [answered(engine, [replace(card.ask(), prompt=prompt, clock=0.0)], tenant=str(i))[0] for i in range(2)]
        end = ends[-1]
        lines += [
            CardLine(f"{what}: first text", 1e3 * (end.timings.first_text_s or 0), "ms"),
            CardLine(f"{what}: first sound", 1e3 * (end.timings.first_audio_s or 0), "ms"),
        ]
    engine.close()
    return lines


def beside_peer(card: CardModel, reference: Reference, lines: Sequence[CardLine]) -> list[CardLine]:
    """transformers' whole answer on the same weights: the second of two."""
    prompt = random_prompt(90)
    for _ in range(2):
        begin = time.perf_counter()
        reference.answer(prompt, card.scale.words, card.scale.codes)
        theirs = time.perf_counter() - begin
    ours = {line.what: line.value for line in lines}
    seconds = card.scale.codes * (card.models.token2wav.code_s if card.models.token2wav else 0)
    whole = ours["whole answer alone, balanced"] * seconds
    return [
        CardLine("transformers' whole answer", theirs, "s"),
        CardLine("descant's first sound is sooner", 1e3 * theirs / ours["first sound alone, low"], "times", ">= 20"),
        CardLine("descant's whole answer is faster", theirs / whole, "times", ">= 6"),
    ]


def official_lines(
    shape: OfficialShape, device: torch.device, compare: Peer | None, say: Callable[[str], None]
) -> list[CardLine]:
    """All rows of an official shape."""
    return measure_card(official_config(shape), device, compare=compare, say=say)
