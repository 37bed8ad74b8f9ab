"""A camera, and a sound device that runs at another rate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.page.conftest import DEMO
from tests.page.talks import ANSWER, QUESTION, again, write_camera

pytestmark = pytest.mark.slow

OTHER_RATE = """() => {
  window.AudioContext = class extends AudioContext { constructor() { super({ sampleRate: 44100 }); } };
}"""


def test_the_colour_in_front_of_the_camera_is_named(
    talk_of: Any, say: Callable[[str], np.ndarray], tmp_path: Path
) -> None:
    camera = write_camera(tmp_path / "camera.y4m", DEMO / "stars.png")
    with talk_of([3.0, say("what colour is it"), 20.0], camera) as tab:
        tab.begin_talk()
        tab.show_camera()
        tab.wait_state("Speaking")
        tab.shot("camera")
        assert "blue" in tab.answer()
        frames = [event for event in tab.sent if event["type"] == "input_image_buffer.append"]
        assert 1 <= len(frames) <= 4  # while somebody speaks, and not before
        tab.wait_state("Listening")
        tab.ask("What colour is it?")
        assert "blue" in tab.answer(2)


def test_a_device_of_another_rate_and_a_muted_microphone(talk_of: Any, say: Callable[[str], np.ndarray]) -> None:
    with talk_of([1.0, *again(say(QUESTION))]) as tab:
        tab.page.evaluate(OTHER_RATE)
        tab.page.click(".big-talk")
        assert tab.answered(ANSWER)
        tab.page.click("button[aria-label='Mute microphone']")
        tab.wait_state("Microphone off")
        count = tab.page.locator("article").count()
        tab.page.wait_for_timeout(3000)
        assert tab.page.locator("article").count() == count
