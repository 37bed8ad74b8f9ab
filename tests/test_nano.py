"""The embedded model as it is shipped: its size, its cards, the demo, and speech that starts while the text goes on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import descant
from descant.cli import demo, inspect
from descant.types import AudioChunk, Event, Finished, TextDelta
from descant.weights.fetch import MODELS_FOLDER, embedded

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("nano" not in embedded(), reason="the embedded model is not in this checkout"),
]
FOLDER = MODELS_FOLDER / "nano"
LONG = "What can you do?"  # the longest answer that nano knows


@pytest.fixture(scope="module")
def omni() -> descant.Omni:
    return descant.load("nano")


@pytest.fixture(scope="module")
def long_answer(omni: descant.Omni) -> list[Event]:
    return list(omni.chat([descant.user(LONG)], seed=1))


def test_it_is_small_and_complete() -> None:
    report = inspect.inspect_folder(FOLDER)
    assert 15_000_000 <= report.parameters <= 25_000_000
    assert sum(path.stat().st_size for path in FOLDER.rglob("*.safetensors")) <= 60_000_000
    assert not [path for path in FOLDER.rglob("*") if path.suffix in (".pt", ".bin", ".pkl", ".py")]
    assert {path.name for path in FOLDER.glob("*.md")} >= {"MODEL_CARD.md", "DATA_CARD.md"}


def test_the_demo_is_right(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert demo.main() == 0
    rows = json.loads((tmp_path / "out/demo/report.json").read_text())["questions"]
    assert len(rows) == 6 and all(demo.loudness(tmp_path / row["wav"]) > demo.AUDIBLE_RMS for row in rows)


def test_speech_starts_while_the_text_goes_on(long_answer: list[Event]) -> None:
    sounds = [event.t for event in long_answer if isinstance(event, AudioChunk)]
    texts = [event.t for event in long_answer if isinstance(event, TextDelta)]
    assert sounds[0] < texts[-1] and sounds[0] < long_answer[-1].t / 3


def test_a_seed_repeats_text_and_sound(omni: descant.Omni, long_answer: list[Event]) -> None:
    again = list(omni.chat([descant.user(LONG)], seed=1))
    assert isinstance(again[-1], Finished) and isinstance(long_answer[-1], Finished)
    assert again[-1].text == long_answer[-1].text
    assert np.array_equal(samples(again), samples(long_answer))


def samples(events: list[Event]) -> np.ndarray:
    return np.concatenate([event.samples for event in events if isinstance(event, AudioChunk)])
