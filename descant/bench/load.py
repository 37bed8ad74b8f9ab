"""A load test of any OpenAI-compatible server: so many clients at once, each asking again once it was answered.

The figures bear the names of other tools: ttft, time to the first text; audio_ttfp, time to the first packet
of sound; e2el, to the end; audio_rtf, e2el / length of the sound. Times count from the complete question.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from descant.errors import DescantError, OptionError, SessionError
from descant.inputs.door import open_audio
from descant.remote.heard import Heard
from descant.remote.server import SOME_VOICE, RemoteServer, question
from descant.remote.wire import STREAM_RATE_HZ
from descant.types import Budget

LOAD_ROUTES = {"chat": "/v1/chat/completions", "realtime": "/v1/realtime"}
PERCENTILES = {"p50": 50, "p90": 90, "p95": 95, "p99": 99}
FIGURES: dict[str, Callable[[Heard], float | None]] = {
    "ttft_ms": lambda heard: milliseconds(heard.first_text_s),
    "audio_ttfp_ms": lambda heard: milliseconds(heard.first_audio_s),
    "e2el_ms": lambda heard: milliseconds(heard.total_s),
    "audio_duration_s": lambda heard: heard.audio_s if heard.samples else None,
    "audio_rtf": lambda heard: heard.rtf,
}
MOST_CLIENTS = 1024
LoadAsk = Callable[[int], Heard]  # one request; its number -> what was heard


@dataclass(frozen=True)
class LoadWish:
    """A load test. model: of the server ("": its first); levels: of clients at once; turns: of each client; prompt:
    typed, for chat; spoken: a file, for realtime; speech: False for text only (chat); max_tokens: of a text."""

    model: str
    levels: tuple[int, ...]
    turns: int
    prompt: str
    spoken: Path
    speech: bool = True
    max_tokens: int | None = None


@dataclass
class LoadLevel:
    """One route under so many clients. faults: messages of the requests that failed."""

    route: str
    clients: int
    heard: list[Heard] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def record(self) -> dict[str, Any]:
        """The figures, by the names of peers' tools."""
        told: dict[str, Any] = {
            "max_concurrency": self.clients,
            "completed": len(self.heard),
            "failed": len(self.faults),
            "errors": sorted(set(self.faults)),
            "duration_s": digits(self.seconds),
            "request_throughput": digits(len(self.heard) / self.seconds),
            "audio_throughput": digits(sum(heard.audio_s for heard in self.heard) / self.seconds),
            "underruns": sum(heard.underruns for heard in self.heard),
            "requests_with_underruns": sum(heard.underruns > 0 for heard in self.heard),
        }
        for name, figure in FIGURES.items():
            told |= percentiles(name, [value for heard in self.heard if (value := figure(heard)) is not None])
        return told


def milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


def digits(value: float) -> float:
    """Four digits; more would be noise."""
    return float(f"{value:.4g}")


def percentiles(name: str, values: Sequence[float]) -> dict[str, float | None]:
    """mean_NAME, p50_NAME, ...; None without values."""
    if not values:
        return dict.fromkeys([f"mean_{name}", *(f"{share}_{name}" for share in PERCENTILES)])
    told: dict[str, float | None] = {f"mean_{name}": digits(statistics.fmean(values))}
    return told | {f"{share}_{name}": digits(float(np.percentile(values, p))) for share, p in PERCENTILES.items()}


def one_level(route: str, ask: LoadAsk, clients: int, turns: int) -> LoadLevel:
    """Have ``clients`` ask ``turns`` times each. A request that fails is counted, and the next one goes on."""
    level = LoadLevel(route, clients)
    left = threading.Event()

    def client(number: int) -> None:
        for turn in range(turns):
            if left.is_set():
                return
            try:
                level.heard.append(ask(number * turns + turn))
            except DescantError as error:
                level.faults.append(str(error))

    begin = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        try:
            for _ in pool.map(client, range(clients)):
                pass
        finally:  # an interrupt: what has begun ends, and nothing else begins
            left.set()
    level.seconds = time.perf_counter() - begin
    return level


def asks(server: RemoteServer, wish: LoadWish) -> dict[str, LoadAsk]:
    """The way to ask each route."""
    from descant.remote.spoken import spoken_turn

    pcm = (np.clip(open_audio(str(wish.spoken), STREAM_RATE_HZ, Budget()), -1, 1) * 32767).astype("<i2").tobytes()

    voice = SOME_VOICE if wish.speech else None

    def chat(number: int) -> Heard:
        messages = [{"role": "user", "content": wish.prompt}]
        body = question(messages, wish.model, voice=voice, max_tokens=wish.max_tokens, seed=number)
        heard = Heard()
        for delta in server.stream(body):
            heard.take(delta.text, delta.pcm)
        return heard

    def realtime(number: int) -> Heard:
        return spoken_turn(server.base, server.headers, wish.model, pcm, wish.max_tokens)

    return {"chat": chat, "realtime": realtime}


def load_test(
    server: RemoteServer, wish: LoadWish, routes: Sequence[str], say: Callable[[str], None]
) -> list[LoadLevel]:
    """Sweep every route over the levels, after one request that is not counted. Raises what that one meets."""
    known = asks(server, wish)
    made = []
    for route in routes:
        ask = known[route]
        ask(0)
        for clients in wish.levels:
            say(f"{LOAD_ROUTES[route]}: {clients} at once, {wish.turns} turns each")
            made.append(one_level(route, ask, clients, wish.turns))
            if not made[-1].heard:
                raise SessionError(f"no request of {clients} at once was answered: {made[-1].faults[0]}")
    return made


def levels_of(text: str) -> tuple[int, ...]:
    """ "1,2,4" -> (1, 2, 4). Raises OptionError."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and 1 <= int(word) <= MOST_CLIENTS for word in words):
        raise OptionError(f"--concurrency {text}: write numbers from 1 to {MOST_CLIENTS}, as in 1,2,4,8")
    return tuple(sorted({int(word) for word in words}))


def routes_of(text: str) -> list[str]:
    """ "chat,realtime" -> the routes. Raises OptionError."""
    names = list(dict.fromkeys(word.strip() for word in text.split(",")))
    if not set(names) <= set(LOAD_ROUTES):
        raise OptionError(f"--routes {text}: known are {', '.join(LOAD_ROUTES)}")
    return names


def load_record(levels: Sequence[LoadLevel], server: RemoteServer, wish: LoadWish) -> dict[str, Any]:
    """The JSON object of a run. The key is not in it."""
    by_route: dict[str, list[Mapping[str, Any]]] = {}
    for level in levels:
        by_route.setdefault(LOAD_ROUTES[level.route], []).append(level.record())
    asked = {"model": wish.model, "prompt": wish.prompt, "spoken": wish.spoken.name, "turns": wish.turns}
    asked |= {"max_tokens": wish.max_tokens}
    return {"url": server.base, **asked, "speech": wish.speech, "routes": by_route}
