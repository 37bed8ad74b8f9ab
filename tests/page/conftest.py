"""The page in a real browser: Debian's Chromium, a server of nano on this machine, and fake microphones and cameras.

Everything here is skipped, with the reason, where Chromium or the built page is missing.
"""

from __future__ import annotations

import gzip
import os
import shutil
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
from _pytest.runner import runtestprotocol

import descant
from descant.server.page import PAGE_FOLDER, PageFile
from descant.server.settings import ServerSettings
from descant.weights.fetch import embedded
from tests.page.talks import TAP, TAPPED, pairs
from tests.server.conftest import Running, run

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "descant" / "assets" / "demo"
SHOTS = ROOT / "out" / "page"  # what was seen, for people to look at
RATE_HZ = 24_000
FAKE_RATE_HZ = 48_000  # of Chromium's fake microphone
VOICE_SEED = 3  # with which nano understands itself
PATIENCE_MS = 20_000
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --autoplay-policy=no-user-gesture-required"
).split()
FAKE_MEDIA = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")

# What the page has kept, as a test reads it: turns with their sound as base64 of WAV files.
KEPT = """async () => {
  const done = (request) => new Promise((resolve) => { request.onsuccess = () => resolve(request.result); });
  const db = await done(indexedDB.open("descant"));
  const all = await done(db.transaction("conversations").objectStore("conversations").getAll());
  const base64 = async (blob) => {
    let text = "";
    for (const byte of new Uint8Array(await blob.arrayBuffer())) text += String.fromCharCode(byte);
    return btoa(text);
  };
  all.sort((a, b) => b.updated - a.updated);
  const turns = all.length ? all[0].turns : [];
  return Promise.all(turns.map(async (turn) => ({
    ...turn, media: turn.media.length, sound: turn.sound ? await base64(turn.sound) : null })));
}"""


ATTEMPTS = 3


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """A talk is held in real time, by a browser, a server and a microphone on the same two cores: where one of them was
    kept waiting it is held again. What is wrong is wrong each time."""
    for attempt in range(ATTEMPTS):
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        if attempt + 1 == ATTEMPTS or not any(report.failed for report in reports):
            break
        item._initrequest()  # type: ignore[attr-defined]  # fixtures are made anew
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    why = None
    if CHROMIUM is None:
        why = "no Chromium here: apt-get install chromium"
    elif not (PAGE_FOLDER / "index.html").is_file():
        why = "the page is not built: make page (Node.js 20)"
    elif "nano" not in embedded():
        why = "no weights of nano in this checkout"
    for item in items:
        if here in item.path.parents and why is not None and "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="session")
def nano() -> descant.Omni:
    return descant.load("nano")


@pytest.fixture(scope="session")
def served(nano: descant.Omni) -> Iterator[Running]:
    yield from run(nano, ServerSettings(model="nano"))


@pytest.fixture(scope="session")
def say(nano: descant.Omni) -> Callable[[str], np.ndarray]:
    """Words in nano's own voice, (W,) float32 at RATE_HZ."""

    def said(words: str) -> np.ndarray:
        chunks = [e.samples for e in nano.speak(words, seed=VOICE_SEED) if isinstance(e, descant.AudioChunk)]
        return np.concatenate(chunks)

    return said


def write_microphone(path: Path, parts: list[np.ndarray | float]) -> str:
    """A fake microphone's sound: numbers are seconds of silence. Returns Chromium's flag for it."""
    zeros = [np.zeros(round(p * RATE_HZ), np.float32) if isinstance(p, float) else p for p in parts]
    samples = soxr.resample(np.concatenate(zeros), RATE_HZ, FAKE_RATE_HZ)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(FAKE_RATE_HZ)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return f"--use-file-for-fake-audio-capture={path}%noloop"


@dataclass
class Tab:
    """One page in a browser, and what went wrong in it."""

    page: Any
    faults: list[str] = field(default_factory=list)
    sent: list[dict[str, Any]] = field(default_factory=list)  # client events of /v1/realtime, without sound
    told: list[dict[str, Any]] = field(default_factory=list)  # server events

    def begin_talk(self) -> None:
        """Press the button of the talk, and wait until it is listened to."""
        self.page.click(".big-talk")
        self.wait_state("Listening")

    def show_camera(self) -> None:
        """Switch the camera on, and wait for its picture."""
        self.page.click("button[aria-label=Camera]")
        self.page.wait_for_selector("video.preview")

    def ask(self, text: str) -> None:
        self.page.fill("#question", text)
        self.page.press("#question", "Enter")

    def answer(self, number: int = 1) -> str:
        """The text of an answer, once it is complete and was heard."""
        self.page.wait_for_function(
            "n => { const all = document.querySelectorAll('article.model'); const one = all[n - 1];"
            " return one && one.getAttribute('aria-busy') === 'false' }",
            arg=number,
            timeout=PATIENCE_MS,
        )
        return str(self.page.locator("article.model .prose").nth(number - 1).inner_text())

    def answered(self, right: str) -> bool:
        """True once one of the answers is right. A question is said more than once: on a machine that is busy with
        other things the fake microphone stutters."""
        script = "right => [...document.querySelectorAll('article.model .prose')].some(e => e.textContent === right)"
        self.page.wait_for_function(script, arg=right, timeout=2 * PATIENCE_MS)
        return True

    def kept(self) -> list[dict[str, Any]]:
        self.page.wait_for_timeout(600)  # what is written soon is written then
        return list(self.page.evaluate(KEPT))

    def whole(self, right: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """A question and its answer that is right, once one was heard to its end: a question that is said again may
        have cut the first."""
        end = time.monotonic() + 2 * PATIENCE_MS / 1000
        while True:
            for question, answer in pairs(self.kept()):
                if answer["text"] == right and "ended" in answer["trace"] and "heard" not in answer:
                    return question, answer
            assert time.monotonic() < end, self.kept()

    def wait_state(self, word: str) -> None:
        self.page.wait_for_function(
            "word => document.querySelector('.dock .state')?.textContent === word", arg=word, timeout=PATIENCE_MS
        )

    def shot(self, name: str) -> None:
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png")


@pytest.fixture(scope="module")
def browser() -> Iterator[Callable[..., Any]]:
    """Starts Chromium with flags; all are closed at the end, and the driver's event loop with them: tests of other
    files may want one."""
    with playwright.sync_playwright() as driver:
        started = []

        def start(*flags: str) -> Any:
            made = driver.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
            started.append(made)
            return made

        yield start
        for made in started:
            made.close()


@pytest.fixture
def talk_of(browser: Callable[..., Any], served: Running, tmp_path: Path) -> Callable[..., Any]:
    """Opens the page with a microphone that says what it is given."""

    def opened(parts: list[np.ndarray | float], *flags: str, link: str = "") -> Any:
        chromium = browser(*FAKE_MEDIA, write_microphone(tmp_path / "microphone.wav", parts), *flags)
        context = chromium.new_context(viewport={"width": 1280, "height": 800}, locale="en")
        context.add_init_script(TAPPED)
        served.server.gate.state.page["/assets/tap.js"] = PageFile(TAP, gzip.compress(TAP), "text/javascript")
        return tab_of(context, served.url + "/" + link)

    return opened


@contextmanager
def tab_of(context: Any, url: str, *, ready: str = ".reach.ready") -> Iterator[Tab]:
    """The page, opened; no error of a script or of the policy passes unseen."""
    import json

    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    tab = Tab(page)
    page.on("pageerror", lambda error: tab.faults.append(str(error)))
    page.on("console", lambda line: tab.faults.append(line.text) if "Content Security" in line.text else None)

    def keep(events: list[dict[str, Any]], frame: str | bytes) -> None:
        event = json.loads(frame)
        events.append({k: v for k, v in event.items() if k != "audio"})

    def watch(socket: Any) -> None:
        socket.on("framesent", lambda frame: keep(tab.sent, frame))
        socket.on("framereceived", lambda frame: keep(tab.told, frame))

    page.on("websocket", watch)
    page.goto(url)
    page.wait_for_selector(ready)
    yield tab
    assert not tab.faults, tab.faults
    page.close()


os.environ.setdefault("PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD", "1")
