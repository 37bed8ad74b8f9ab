"""The page as it is felt in a browser: ``python benchmarks/page.py [--turns 50] [--typed 100]``.

It needs Chromium and the built page (`make page`). A fake microphone says the demo's question again and again; the page
notes on one clock when speech ended, when the server said so, when the first sound came and when it left for the
loudspeaker. Then typed questions are asked one after the other, and the memory of the page is looked at.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from playwright.sync_api import sync_playwright

import descant
from descant.server.page import PAGE_FOLDER
from descant.server.settings import ServerSettings
from tests.page.conftest import CHROMIUM, DEMO, FAKE_MEDIA, FLAGS, KEPT, RATE_HZ, write_microphone
from tests.server.conftest import run

PAUSE_S = 4.0  # after a question, for its answer
COMPLETE = "count => document.querySelectorAll('article.model .latency').length >= count"
QUESTION = "What is seven plus five?"
WATCH = """() => {
  window.long = [];
  new PerformanceObserver((list) => { for (const one of list.getEntries()) window.long.push(one.duration); })
    .observe({ type: "longtask", buffered: true });
}"""
SPEAKER = """
const Made = window.AudioContext;
window.AudioContext = class extends Made { constructor(...given) { super(...given); window.speaker = this; } };
"""


def question() -> np.ndarray:
    with av.open(str(DEMO / "question.wav")) as file:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE_HZ)
        parts = [out.to_ndarray()[0] for frame in file.decode(audio=0) for out in resampler.resample(frame)]
    return np.concatenate(parts)


def p95(values: Sequence[float]) -> float:
    return sorted(values)[max(0, round(0.95 * len(values)) - 1)]


def line(name: str, values: Sequence[float]) -> str:
    return f"{name:54}{statistics.median(values):8.0f} ms{p95(values):8.0f} ms"


def spoken_turns(page: Any, count: int, turn_s: float) -> list[dict[str, Any]]:
    """The traces of spoken turns."""
    page.click(".big-talk")
    page.wait_for_timeout(1000 * (1 + count * turn_s))
    page.click("button.end")
    page.wait_for_timeout(800)
    turns = page.evaluate(KEPT)
    return [turn["trace"] for turn in turns if turn["role"] == "assistant" and "played" in turn["trace"]]


def typed_turns(page: Any, count: int) -> list[float]:
    """Megabytes of the page's heap, garbage collected: after every tenth of so many typed turns, and without them."""
    session = page.context.new_cdp_session(page)
    page.click(".wide-button")
    heap = []
    for turn in range(1, count + 1):
        page.fill("#question", QUESTION)
        page.press("#question", "Enter")
        page.wait_for_function(COMPLETE, arg=turn, timeout=60_000)
        page.wait_for_selector("button[aria-label=Stop]", state="detached", timeout=60_000)
        if turn % max(1, count // 10) == 0:
            heap.append(heap_mb(session))
    page.click(".wide-button")
    page.wait_for_selector("article", state="detached")
    return [*heap, heap_mb(session)]


def heap_mb(session: Any) -> float:
    session.send("HeapProfiler.collectGarbage")
    return float(session.send("Runtime.getHeapUsage")["usedSize"] / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=50)
    parser.add_argument("--typed", type=int, default=100)
    arguments = parser.parse_args()
    sizes = {path.name: len(gzip.compress(path.read_bytes())) for path in PAGE_FOLDER.rglob("*.*") if path.is_file()}
    print(f"bundle: {sum(sizes.values()) / 1000:.1f} kB gzipped")
    said = question()
    parts: list[np.ndarray | float] = [1.0]
    for _ in range(arguments.turns):
        parts += [said, PAUSE_S]
    omni = descant.load("nano")
    serving = run(omni, ServerSettings(model="nano"))
    url = next(serving).url
    with sync_playwright() as driver, tempfile.TemporaryDirectory() as folder:
        microphone = write_microphone(Path(folder) / "microphone.wav", [*parts, 5.0])
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *FAKE_MEDIA, microphone])
        page = browser.new_context(locale="en").new_page()
        page.add_init_script(SPEAKER)
        page.goto(url)
        page.wait_for_selector(".reach.ready")
        ready = page.evaluate("performance.now()")
        loaded = page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
        print(f"cold load: document {loaded:.0f} ms, ready to be asked {ready:.0f} ms")
        page.evaluate(WATCH)
        traces = spoken_turns(page, arguments.turns, len(said) / RATE_HZ + PAUSE_S)
        print(f"\n{len(traces)} spoken turns{'median':>45}{'p95':>11}")
        silence = page.evaluate("JSON.parse(localStorage['descant.settings']).silence")
        felt = [trace["played"] - trace["asked"] for trace in traces]
        server = [trace["sound"] - trace["sent"] for trace in traces]
        capture = [trace["sent"] - trace["asked"] - silence for trace in traces]
        player = [trace["played"] - trace["sound"] for trace in traces]
        print(line("end of speech to the first sound at the loudspeaker", felt))
        print(f"  of it the silence that ends a turn{silence:28.0f} ms")
        print(line("  the server: end of the turn to the first sound", server))
        print(line("  the page: microphone to the server's word for it", capture))
        print(line("  the page: the first sound's arrival to loudspeaker", player))
        latency = page.evaluate("1000 * speaker.outputLatency")
        print(f"    of it the sound device, as the browser says it{latency:15.0f} ms")
        print(line("  the page in all", [one + two for one, two in zip(capture, player, strict=True)]))
        long = page.evaluate("window.long")
        print(f"tasks over 50 ms while it talked: {len(long)}, the longest {max(long, default=0):.0f} ms")
        heap = typed_turns(page, arguments.typed)
        print(
            f"\nheap after each tenth of {arguments.typed} typed turns, and in a new conversation: "
            f"{json.dumps([round(mb, 1) for mb in heap])} MB"
        )
        browser.close()
    serving.close()


if __name__ == "__main__":
    main()
