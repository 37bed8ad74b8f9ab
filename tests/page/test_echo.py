"""The answer comes back through the microphone: the model does not interrupt itself, and a person still does.

A fake microphone has no room around it. Here one is made: what goes to the loudspeaker is mixed, later and fainter,
into what the page is given as its microphone. So this shows what the page and the server make of the echo that a
canceller leaves. How much Chromium's own leaves in a real room is not shown: it stands before the mixing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.page.talks import QUESTION

pytestmark = pytest.mark.slow

LATER_S = 0.12  # loudspeaker to microphone, buffers included
LEFT_DB = -26  # of the answer, which a weak canceller leaves
ROOM = """([later, gain]) => {
  const connect = AudioNode.prototype.connect;
  const open = MediaDevices.prototype.getUserMedia;
  let echo = null;
  AudioNode.prototype.connect = function (to, ...rest) {
    if (to instanceof AudioDestinationNode && !echo) {
      echo = new GainNode(this.context, { gain });
      const air = new DelayNode(this.context, { delayTime: later });
      connect.call(this, air);
      connect.call(air, echo);
    }
    return connect.call(this, to, ...rest);
  };
  MediaDevices.prototype.getUserMedia = async function (wish) {
    const stream = await open.call(this, wish);
    if (!wish.audio || !echo) return stream;
    const mixed = echo.context.createMediaStreamDestination();
    connect.call(echo.context.createMediaStreamSource(stream), mixed);
    connect.call(echo, mixed);
    window.echoes = new AnalyserNode(echo.context, { fftSize: 2048 });
    connect.call(echo, window.echoes);
    return mixed.stream;
  };
}"""
LOUDEST = """() => {
  window.loudest = 0;
  setInterval(() => {
    const samples = new Float32Array(2048);
    window.echoes?.getFloatTimeDomainData(samples);
    window.loudest = samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), window.loudest);
  }, 40);
}"""


def room(tab: Any, left_db: float) -> None:
    tab.page.evaluate(ROOM, [LATER_S, 10 ** (left_db / 20)])
    tab.page.evaluate(LOUDEST)


def test_the_model_does_not_interrupt_itself(talk_of: Any) -> None:
    with talk_of([60.0]) as tab:
        room(tab, LEFT_DB)
        tab.begin_talk()
        tab.ask("What can you do?")
        tab.wait_state("Speaking")
        tab.wait_state("Listening")
        assert tab.page.evaluate("window.loudest") > 0.01  # the echo was there, and as loud as faint speech
        question, answer = tab.kept()
        assert "heard" not in answer and answer["state"] == "done" and question["role"] == "user"
        assert not [event for event in tab.told if event["type"] == "input_audio_buffer.speech_started"]


def test_a_person_interrupts_over_the_echo(talk_of: Any, say: Callable[[str], np.ndarray]) -> None:
    with talk_of([4.0, say(QUESTION), 20.0]) as tab:
        room(tab, LEFT_DB)
        tab.begin_talk()
        tab.ask("What can you do?")
        tab.wait_state("Speaking")
        tab.wait_state("Hearing you")
        tab.page.wait_for_selector(".unheard")
        assert tab.kept()[1]["state"] == "stopped"
