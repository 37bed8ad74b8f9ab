"""A talk over WebRTC, and over the WebSocket where a server takes no calls."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.page.talks import ANSWER, QUESTION, again

pytest.importorskip("aiortc", reason="the extra [webrtc] is not installed")
pytestmark = pytest.mark.slow
NO_MDNS = "--disable-features=WebRtcHideLocalIpsWithMdns"  # nothing resolves .local here


def test_a_spoken_question_is_answered_over_webrtc(talk_of: Any, say: Callable[[str], np.ndarray]) -> None:
    with talk_of([2.0, *again(say(QUESTION))], NO_MDNS, link="#transport=call") as tab:
        tab.page.click(".big-talk")
        tab.wait_state("Speaking")
        assert tab.answered(ANSWER)
        question, answer = tab.whole(ANSWER)
        assert not tab.sent  # no WebSocket
        assert question["spoken"] and answer["spoken"]
        samples = np.frombuffer(b64decode(answer["sound"])[44:], "<i2") / 32768
        assert 0.5 < len(samples) / 24_000 < 6 and np.sqrt(np.mean(samples**2)) > 0.02  # what was heard is kept
        assert answer["trace"]["sound"] <= answer["trace"]["played"] < answer["trace"]["ended"]


def test_an_answer_that_is_stopped_keeps_what_the_server_played(talk_of: Any) -> None:
    with talk_of([60.0], NO_MDNS, link="#transport=call&memory=all") as tab:
        tab.begin_talk()
        tab.ask("What can you do?")
        tab.wait_state("Speaking")
        tab.page.wait_for_timeout(1200)
        tab.page.keyboard.press("Escape")
        tab.wait_state("Listening")
        tab.page.wait_for_selector(".unheard")
        cut = tab.kept()[1]
        assert cut["state"] == "stopped" and 0 < cut["heard"] < len(cut["text"])


def test_a_server_that_takes_no_calls_is_talked_to_over_the_socket(talk_of: Any) -> None:
    with talk_of([60.0], link="#transport=call") as tab:
        refusal = {"error": {"code": "not_implemented", "message": "no calls here"}}
        tab.page.route("**/v1/realtime/calls", lambda route: route.fulfill(status=501, json=refusal))
        tab.begin_talk()
        assert "the WebSocket is used" in tab.page.inner_text(".messages")
        tab.ask(QUESTION)
        assert tab.answer() == ANSWER
        assert [event["type"] for event in tab.sent if event["type"] == "response.create"]
