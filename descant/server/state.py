"""The state of a running server: its model, its figures, and the spoken answers that follow-up turns may name."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from descant.errors import RequestError
from descant.inputs.decoder import confinement
from descant.omni import TENANT, Omni
from descant.server.fetch import MediaFetcher
from descant.server.kept import KeptResponses
from descant.server.page import read_page
from descant.server.settings import ServerSettings
from descant.server.silero import NET_RATE_HZ, detector
from descant.server.tickets import Tickets
from descant.server.vad import TurnDetector, VadSettings
from descant.types import Finished

KEPT_ANSWERS = 1000  # spoken answers whose text a follow-up turn may ask for by id
KEPT_S = 3600.0  # seconds that they are kept
LAG_EVERY_S = 0.25  # between two looks at how late the event loop is
TIMED_STAGES = ("queue", "read", "think", "talk", "decode")  # as Timings names them
SECONDS_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)  # seconds


class Figures:
    """The figures of /metrics: of answers as they end, and of the engine as it is asked."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.requests = Counter("descant_requests", "Requests by route and status.", ("route", "status"), registry=r)
        self.answers = Counter("descant_answers", "Answers that have ended.", registry=r)
        self.rejects = Counter("descant_rejects", "Requests that were refused, by code.", ("code",), registry=r)
        self.tokens = Counter("descant_tokens", "Tokens read and written, by kind.", ("kind",), registry=r)
        self.stages = Histogram(
            "descant_stage_seconds", "Of an answer, by stage; passes that are shared count whole.", ("stage",),
            buckets=SECONDS_BUCKETS, registry=r,
        )  # fmt: skip
        self.underruns = Counter("descant_underruns", "Times that a listener had no sound left.", registry=r)
        self.first_text = Histogram(
            "descant_first_text_seconds", "To the first text.", buckets=SECONDS_BUCKETS, registry=r
        )
        self.first_audio = Histogram(
            "descant_first_audio_seconds", "To the first sound.", buckets=SECONDS_BUCKETS, registry=r
        )
        self.lag = Gauge("descant_loop_lag_seconds", "The event loop's lateness, the worst of late.", registry=r)
        self.ledger = {
            name: Gauge(f"descant_{name}", f"{name.replace('_', ' ')} that are lent out.", registry=r)
            for name in ("sessions", "live_sessions", "waiting", "thinker_pages", "talker_pages")
        }

    def add(self, finished: Finished) -> None:
        """Count an answer that has ended."""
        self.answers.inc()
        timings = finished.timings
        usage = finished.usage
        self.underruns.inc(usage.underruns)
        cached = usage.prompt_tokens - usage.prefilled_tokens
        counts = {"read": usage.prefilled_tokens, "cached": cached, "text": usage.text_tokens, "audio": usage.codes}
        for kind, count in counts.items():
            self.tokens.labels(kind).inc(max(count, 0))
        for stage in TIMED_STAGES:
            self.stages.labels(stage).observe(vars(timings)[f"{stage}_s"])
        if timings.first_text_s is not None:
            self.first_text.observe(timings.first_text_s)
        if timings.first_audio_s is not None:
            self.first_audio.observe(timings.first_audio_s)

    def totals(self) -> tuple[float, float]:
        """(under-runs, answers) since the server began."""
        names = ("descant_underruns_total", "descant_answers_total")
        late, ended = (self.registry.get_sample_value(name) or 0.0 for name in names)
        return late, ended


class SpokenAnswers:
    """The texts of spoken answers, by the id that the client was given; nobody else's id is known."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[float, str, str]] = OrderedDict()

    def keep(self, text: str) -> tuple[str, int]:
        """A new id for a text, and when it is forgotten (seconds since 1970)."""
        name = f"audio_{secrets.token_hex(12)}"
        with self._lock:
            self._kept[name] = time.monotonic() + KEPT_S, TENANT.get(), text
            while len(self._kept) > KEPT_ANSWERS:
                self._kept.popitem(last=False)
        return name, int(time.time() + KEPT_S)

    def replace(self, name: str, text: str) -> None:
        """Keep another text under an id that was given out already."""
        with self._lock:
            if name in self._kept:
                self._kept[name] = (*self._kept[name][:2], text)

    def text(self, name: str) -> str | None:
        with self._lock:
            until, tenant, text = self._kept.get(name, (0.0, "", ""))
        return text if until > time.monotonic() and tenant == TENANT.get() else None


@dataclass
class ServerStores:
    """The stores of what later requests may name. replica: one of several; its name is in those of what it holds."""

    spoken: SpokenAnswers = field(default_factory=SpokenAnswers)
    responses: KeptResponses = field(default_factory=KeptResponses)
    tickets: Tickets = field(default_factory=Tickets)
    replica: str = ""


class ServerState:
    """One model behind one server. omni: None until it is loaded and warm."""

    def __init__(self, settings: ServerSettings, stores: ServerStores | None = None):
        stores = stores or ServerStores()
        self.settings = settings
        self.figures = Figures()
        self.spoken = stores.spoken
        self.responses = stores.responses
        self.page = read_page()
        self.tickets = stores.tickets
        self.replica = stores.replica
        self.calls: dict[str, asyncio.Task[None]] = {}  # over WebRTC, by their ids
        self.created = int(time.time())
        self.loaded: Omni | None = None
        self.draining = False
        self.fetcher = MediaFetcher(settings.media_hosts) if settings.media_hosts else None
        self.decoder = "none"  # what confines the process that reads media
        self._lag: asyncio.Task[None] | None = None

    @property
    def omni(self) -> Omni:
        """The model. Raises RequestError while it is not ready, and when the server is about to stop."""
        if self.draining:
            raise RequestError(503, "draining", "the server is about to stop; ask another one", "overloaded_error")
        if self.loaded is None:
            raise RequestError(
                503, "loading", "the model is being loaded; try again soon", "overloaded_error",
                headers={"retry-after": "1"},
            )  # fmt: skip
        return self.loaded

    def voice(self, name: str | None) -> str | None:
        """A voice of the model: names of other services' voices mean the default one. None: it has none."""
        voices = self.omni.voices
        known = {voice.lower(): voice for voice in voices}
        return known.get((name or "").lower(), voices[0] if voices else None)

    def detector(self, rate: int, settings: VadSettings) -> TurnDetector:
        """A detector of speech for one microphone at ``rate`` Hz."""
        return detector(self.settings.vad, rate, settings)

    async def warm_up(self, omni: Omni) -> None:
        """One short answer, so that the first client does not wait for what happens once."""
        async for _ in await omni.achat("hello", speech=omni.speaks, max_tokens=4, seed=0):
            pass
        self.decoder = await asyncio.to_thread(confinement)
        await asyncio.to_thread(self.detector, NET_RATE_HZ, VadSettings())  # loads the network, if there is one
        self.loaded = omni

    def watch_lag(self) -> None:
        """Measure from now on how late the event loop is."""
        self._lag = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        worst = 0.0
        while True:
            due = time.perf_counter() + LAG_EVERY_S
            await asyncio.sleep(LAG_EVERY_S)
            worst = max(time.perf_counter() - due, 0.9 * worst)
            self.figures.lag.set(worst)

    async def stop(self) -> None:
        """Let what is being answered end, within the settings' time; then end the rest."""
        self.draining = True
        for call in list(self.calls.values()):
            call.cancel()
        if self._lag is not None:
            self._lag.cancel()
            with suppress(asyncio.CancelledError):
                await self._lag
        if self.loaded is not None:
            await self.loaded.adrain(self.settings.drain_s)
            await asyncio.to_thread(self.loaded.close)
