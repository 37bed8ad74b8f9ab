"""What the model sees of a question, drawn from what the server tells of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.page.conftest import DEMO
from tests.page.talks import write_camera
from tests.page.test_look import AXE, check

pytestmark = pytest.mark.slow


def test_sound_and_frames_of_a_spoken_question_are_drawn_in_the_order_of_reading(
    talk_of: Any, say: Callable[[str], np.ndarray], tmp_path: Path
) -> None:
    camera = write_camera(tmp_path / "camera.y4m", DEMO / "stars.png")
    with talk_of([3.0, say("what colour is it"), 20.0], camera) as tab:
        tab.begin_talk()
        tab.show_camera()
        tab.answer()
        told = next(event for event in tab.told if event["type"] == "conversation.item.layout")
        types = [run["type"] for run in told["runs"]]
        tab.page.click("article.user button[aria-label^='What the model sees']")
        picture = tab.page.locator(".sight")
        assert {"audio", "video"} <= set(types)
        assert picture.locator("g.seen").count() == types.count("video")
        assert picture.locator("rect.heard").count() == types.count("audio")
        heard = sum(run["count"] for run in told["runs"] if run["type"] == "audio")
        assert f"Sound positions: {heard}." in picture.locator("svg").get_attribute("aria-label")
        tab.shot("sight")
        if AXE.is_file():
            check(tab)
        tab.page.emulate_media(color_scheme="dark")
        tab.shot("sight-dark")
