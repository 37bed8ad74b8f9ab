"""One realtime talk on nano with an interruption, on one clock. ``python benchmarks/realtime_talk.py``

Over a WebSocket of this process, in real time, 20 ms at a time: somebody asks, hears the beginning of the answer, asks
again into it, and is answered. The server tells turns by itself; the client plays what comes, stops when it is spoken
into, and says how much was heard. All that is drawn happened: events as the client got them, the engine's stages
clocked from outside, and the history as the server tells it afterwards.

The picture goes to benchmarks/results/realtime-talk.svg, the trace to realtime-talk.json. The voice is flite's.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from base64 import b64decode, b64encode
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timeline import LEFT, RIGHT, STAGES, WIDTH, Trace, WatchedWorker, loudness, wave
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

import descant
from descant.bench.svg import FAINT, GOOD, PLAIN, SHORT, bar, document, text, upright
from descant.config import OUTPUT_RATE_HZ as RATE_HZ
from descant.engine.engine import Engine
from descant.server.settings import ServerSettings
from descant.train.nano.speech_data import Flite
from tests.server.conftest import run

RESULTS = Path(__file__).resolve().parent / "results"
FIRST = SECOND = "what is six plus nine"  # nano knows single turns: only the same question fits what was said before
PIECE = RATE_HZ // 50
HEARD_S = 0.9  # of the first answer, before it is spoken into
TOP, LANE = 64, 34  # pixels
LANES = ("microphone", "turns", "reading", "text", "codes", "codes to sound", "loudspeaker")


@dataclass
class Talk:
    """Seconds since the microphone was opened. turns: (begin, end) of speech as it was told; answers: what came of
    each: (when, kind, what); played: (begin, end) of what was heard of each; history: as the server tells it."""

    spans: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    heard: list[float] = field(default_factory=list)  # loudness of each 20 ms of the microphone
    events: list[tuple[float, str, str]] = field(default_factory=list)
    sounds: list[tuple[float, int, int]] = field(default_factory=list)  # when, of which answer, samples
    said: list[list[float]] = field(default_factory=list)  # loudness of each 20 ms of each answer
    spoken_into: float = 0.0
    heard_ms: int = 0
    texts: list[str] = field(default_factory=list)
    history: list[str] = field(default_factory=list)


class Client:
    """A microphone and a loudspeaker on one socket."""

    def __init__(self, plug: ClientConnection, talk: Talk, begin: float):
        self.plug = plug
        self.talk = talk
        self.begin = begin
        self.items: list[str] = []  # of the answers
        self.kept = ""
        self.done = threading.Semaphore(0)
        self.thread = threading.Thread(target=self.listen, daemon=True)

    def clock(self) -> float:
        return time.perf_counter() - self.begin

    def send(self, kind: str, **fields: Any) -> None:
        self.plug.send(json.dumps({"type": kind, **fields}))

    def push(self, samples: np.ndarray) -> None:
        """A piece of the microphone's sound, when it has been spoken."""
        time.sleep(max(0.0, len(self.talk.heard) / 50 + 0.02 - self.clock()))
        pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
        self.send("input_audio_buffer.append", audio=b64encode(pcm).decode())
        self.talk.heard += loudness(samples, RATE_HZ)

    def say(self, samples: np.ndarray) -> None:
        for start in range(0, len(samples) - PIECE + 1, PIECE):
            self.push(samples[start : start + PIECE])

    def listen(self) -> None:
        """Write down what comes."""
        try:
            while True:
                self.take(json.loads(self.plug.recv()))
        except ConnectionClosed:
            pass

    def take(self, event: dict[str, Any]) -> None:
        now, kind, talk = self.clock(), event["type"], self.talk
        match kind:
            case "response.output_item.added":
                self.items.append(event["item"]["id"])
                talk.said.append([])
                talk.texts.append("")
            case "response.output_audio.delta":
                sound = np.frombuffer(b64decode(event["delta"]), "<i2").astype(np.float32) / 32768
                talk.sounds.append((now, len(self.items) - 1, len(sound)))
                talk.said[-1] += loudness(sound, RATE_HZ)
            case "response.output_audio_transcript.delta":
                talk.texts[-1] += event["delta"]
            case "input_audio_buffer.speech_started":
                talk.events.append((now, kind, str(event["audio_start_ms"])))
                self.spoken_into(now)
            case "input_audio_buffer.speech_stopped" | "response.created":
                talk.events.append((now, kind, ""))
            case "response.done":
                talk.events.append((now, kind, event["response"]["status"]))
                self.done.release()
            case "conversation.item.retrieved":
                self.kept = event["item"]["content"][0]["transcript"]
                self.done.release()

    def spoken_into(self, now: float) -> None:
        """Stop playing, and say how much was heard."""
        if len(self.items) != 1:
            return
        first = self.talk.sounds[0][0]
        whole = sum(count for _, answer, count in self.talk.sounds if answer == 0)
        self.talk.spoken_into = now
        self.talk.heard_ms = round(1000 * min(now - first, whole / RATE_HZ))
        self.send("conversation.item.truncate", item_id=self.items[0], content_index=0, audio_end_ms=self.talk.heard_ms)


def hold(client: Client) -> None:
    """The talk itself."""
    voice = Flite("slt")
    first, second = (voice.speak(words)[0].astype(np.float32) for words in (FIRST, SECOND))
    room = np.random.default_rng(0)

    def quiet(seconds: float) -> np.ndarray:
        return (3e-4 * room.standard_normal(round(seconds * RATE_HZ))).astype(np.float32)

    client.begin = time.perf_counter()
    client.thread.start()
    client.say(np.concatenate([quiet(0.6), first]))
    while not client.talk.sounds or client.clock() < client.talk.sounds[0][0] + HEARD_S:
        client.push(quiet(0.02))
    client.say(second)
    while sum(kind == "response.done" for _, kind, _ in client.talk.events) < 2:
        client.push(quiet(0.02))
    last = max(at for at, answer, _ in client.talk.sounds if answer == 1)
    while client.clock() < last + 0.8:
        client.push(quiet(0.02))
    for _ in range(2):
        client.done.acquire(timeout=10)
    client.send("conversation.item.retrieve", item_id=client.items[0])
    client.done.acquire(timeout=10)
    kept = client.kept
    client.talk.history = [f'user: "{FIRST}"', f'assistant: "{kept}"', f'user: "{SECOND}"',
                           f'assistant: "{client.talk.texts[1]}"']  # fmt: skip


def record() -> Talk:
    """Start a server, talk to it, and write down what happens."""
    torch.set_num_threads(1)
    talk, trace = Talk(), Trace()
    omni = descant.load("nano")
    begin = [time.perf_counter()]
    omni.engine.close()
    omni.engine = Engine(omni.models)
    worker = WatchedWorker(omni.models, omni.engine.limits, lambda: time.perf_counter() - begin[0], trace)
    omni.engine.worker = worker
    omni.engine._lock = worker.lock
    with (
        contextmanager(run)(omni, ServerSettings()) as running,
        connect(f"ws{running.url.removeprefix('http')}/v1/realtime") as plug,
    ):
        client = Client(plug, talk, 0.0)
        trace.spans.clear()
        begin[0] = time.perf_counter()
        hold(client)
        late = client.begin - begin[0]
    talk.spans = {lane: [(a - late, b - late) for a, b in spans] for lane, spans in trace.spans.items()}
    return talk


def draw(talk: Talk) -> str:
    """The whole picture."""
    last = max(len(talk.heard) / 50, *(at + count / RATE_HZ for at, _, count in talk.sounds)) + 0.1
    scale, bottom = (WIDTH - LEFT - RIGHT) / last, TOP + LANE * len(LANES)

    def x(seconds: float) -> float:
        return LEFT + seconds * scale

    out = [text(10, 22, "one realtime talk, spoken into", size=16), text(10, 40, about(talk), colour=FAINT)]
    for second in range(int(last) + 1):
        out.append(upright(x(second), TOP, bottom, colour="#e3e6ea"))
        out.append(text(x(second), bottom + 16, f"{second} s", anchor="middle", colour=FAINT))
    for place, lane in enumerate(LANES):
        y = TOP + LANE * place
        out.append(text(LEFT - 12, y + 21, lane, anchor="end"))
        colour = PLAIN if lane == "reading" else GOOD
        spans = talk.spans.get(lane, ())
        out += [bar(x(a), y + 7, max(0.8, (b - a) * scale), 20, colour, round_by=0) for a, b in spans if b > 0]
    out += wave([n / 50 for n in range(len(talk.heard))], talk.heard, x, TOP + LANE / 2, SHORT)
    out += turns(talk, x, TOP + LANE)
    out += played(talk, x, bottom - LANE / 2)
    out.append(upright(x(talk.spoken_into), TOP - 8, bottom, dashed=True))
    out.append(text(x(talk.spoken_into), TOP - 12, "spoken into", anchor="middle"))
    out.append(text(10, bottom + 42, "what stays in the history", size=14))
    for place, line in enumerate(talk.history):
        out.append(text(10, bottom + 62 + 18 * place, line))
    lost = talk.texts[0][len(talk.history[1]) - len('assistant: ""') :]
    gone = f'written, not heard, and gone: "{lost}"'
    out.append(text(WIDTH - RIGHT, bottom + 80, gone, anchor="end", colour=FAINT))
    return document(WIDTH, bottom + 150, out)


def turns(talk: Talk, x: Any, y: float) -> list[str]:
    """From where the server says that speech began to where it said that it was over; the tick: when it was told."""
    out, begun = [], 0.0
    for at, kind, told in talk.events:
        if kind == "input_audio_buffer.speech_started":
            begun = int(told) / 1000
            out.append(upright(x(at), y + 3, y + 31, colour=SHORT))
        elif kind == "input_audio_buffer.speech_stopped":
            out.append(bar(x(begun), y + 12, x(at) - x(begun), 10, SHORT))
    return out


def played(talk: Talk, x: Any, y: float) -> list[str]:
    """The answers as they were heard; fainter: what had come and was never played."""
    out = []
    for answer, loud in enumerate(talk.said):
        times, free = list[float](), 0.0
        for at, whose, count in talk.sounds:
            if whose == answer:
                free = max(free, at)
                times += [free + n / 50 for n in range(round(50 * count / RATE_HZ))]
                free += count / RATE_HZ
        until = sum(at < talk.spoken_into for at in times) if answer == 0 else len(times)
        out += wave(times[:until], loud[:until], x, y, GOOD)
        out += wave(times[until:], loud[until:], x, y, "#c9d2cd")
    return out


def about(talk: Talk) -> str:
    """The figures that a user feels."""
    stopped = [at for at, kind, _ in talk.events if kind == "input_audio_buffer.speech_stopped"]
    first = [min(at for at, whose, _ in talk.sounds if whose == n) for n in range(len(talk.said))]
    waits = ", ".join(f"{1000 * (sound - stop):.0f} ms" for sound, stop in zip(first, stopped, strict=False))
    return (
        f"nano, one core; from the end of a turn, as it was told, to the first sound: {waits}; heard {talk.heard_ms} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=RESULTS)
    folder: Path = parser.parse_args().folder
    assert set(STAGES.values()) <= set(LANES)
    talk = record()
    (folder / "realtime-talk.svg").write_text(draw(talk), encoding="utf-8")
    (folder / "realtime-talk.json").write_text(json.dumps(asdict(talk)) + "\n", encoding="utf-8")
    print(about(talk), *talk.history, sep="\n")


if __name__ == "__main__":
    main()
