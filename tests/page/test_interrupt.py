"""Who speaks into an answer: it falls silent, and what was heard of it is what the conversation keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.page.talks import QUESTION, played

STOPPED_MS = 200  # from the server's word to silence
HEARD_WITHIN_MS = 60  # what is between the worklet and the ear, and a fade

pytestmark = pytest.mark.slow


def test_who_speaks_interrupts_within_200_ms_and_only_what_was_heard_stays(
    talk_of: Any, say: Callable[[str], np.ndarray]
) -> None:
    with talk_of([4.0, say(QUESTION), 20.0]) as tab:
        tab.begin_talk()
        tab.ask("What can you do?")
        tab.wait_state("Speaking")
        tab.wait_state("Hearing you")
        tab.page.wait_for_selector(".unheard")
        tab.shot("interrupted-by-speech")
        tab.wait_state("Listening")
        cut = tab.kept()[1]
        assert cut["state"] == "stopped" and 0 < cut["heard"] < len(cut["text"])
        trace = cut["trace"]
        assert trace["silent"] - trace["stopAt"] < STOPPED_MS
        truncated = next(event for event in tab.sent if event["type"] == "conversation.item.truncate")
        confirmed = next(event for event in tab.told if event["type"] == "conversation.item.truncated")
        assert truncated["audio_end_ms"] == confirmed["audio_end_ms"]
        # what is shown as heard is what the server keeps in the conversation
        kept = next(event["item"] for event in tab.told if event["type"] == "conversation.item.retrieved")
        assert kept["content"][0]["transcript"] == cut["text"][: cut["heard"]]
        sound, rate = played(tab.page)
        # what left for the loudspeaker before the cut is what the model was told was heard; where the sound ran out,
        # and in the pause after the cut, which is the longest, nothing is played: exact zeros
        sounding = np.flatnonzero(sound)
        longest = int(np.argmax(np.diff(sounding)))
        played_ms = 1000 * (longest + 1) / rate
        assert played_ms == pytest.approx(truncated["audio_end_ms"], abs=HEARD_WITHIN_MS)
