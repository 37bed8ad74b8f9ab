"""A live talk in a real browser: a fake microphone, and what was really played, heard by another model."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from descant.evals.speech import WhisperEar
from tests.page.talks import ANSWER, QUESTION, again, played

pytestmark = pytest.mark.slow


def test_a_spoken_question_is_answered_aloud_and_in_text(talk_of: Any, say: Callable[[str], np.ndarray]) -> None:
    with talk_of([1.0, *again(say(QUESTION))]) as tab:
        tab.page.click(".big-talk")
        tab.wait_state("Hearing you")
        tab.shot("listening")
        tab.wait_state("Speaking")
        tab.shot("speaking")
        assert tab.answered(ANSWER)
        question, answer = tab.whole(ANSWER)
        tab.wait_state("Listening")
        tab.page.click("button.end")
        assert question["spoken"] and question["sound"] and "heard" not in answer  # all of it was
        heard = WhisperEar().hear(*played(tab.page)).lower()
        assert re.search("(seven|7) plus (five|5)", heard), heard
        trace = answer["trace"]
        assert trace["spoke"] < trace["asked"] < trace["sent"] < trace["sound"] <= trace["played"] < trace["ended"]
        tab.page.locator("article.model button[aria-label=Timeline]").last.click()
        tab.shot("timeline")


def test_push_to_talk_sends_what_was_said_while_the_key_was_down(
    talk_of: Any, say: Callable[[str], np.ndarray]
) -> None:
    with talk_of([1.5, *again(say(QUESTION))], link="#talk=push") as tab:
        tab.page.click(".big-talk")
        tab.wait_state("Hold to talk")
        tab.page.evaluate("document.activeElement.blur()")
        tab.page.wait_for_timeout(1200)
        assert not [event for event in tab.sent if event["type"] == "input_audio_buffer.append"]
        tab.page.keyboard.down("Space")
        tab.wait_state("Hearing you")
        tab.shot("push-to-talk")
        tab.page.wait_for_timeout(3000)
        tab.page.keyboard.up("Space")
        tab.answer()
        kinds = [event["type"] for event in tab.sent if event["type"] != "input_audio_buffer.append"]
        assert kinds[-2:] == ["input_audio_buffer.commit", "response.create"]
        assert len(b64decode(tab.kept()[0]["sound"])) > 48_000 * 2.5
