"""A live talk in a real browser: a fake microphone and camera, and what was really played, heard by another model."""

from __future__ import annotations

import gzip
import re
from base64 import b64decode
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from descant.evals.speech import WhisperEar
from descant.server.page import PageFile
from tests.page.conftest import DEMO, FAKE_MEDIA, Tab, tab_of, write_microphone
from tests.server.conftest import Running

QUESTION = "What is seven plus five?"
ANSWER = "Seven plus five is twelve."
STOPPED_MS = 200  # from the first sound of who interrupts to silence
HEARD_WITHIN_MS = 60  # what is between the worklet and the ear, and a fade

# Everything that goes to the loudspeaker is kept too, block by block of the audio clock.
TAP = b"""
registerProcessor("tap", class extends AudioWorkletProcessor {
  process(inputs) { if (inputs[0][0]) this.port.postMessage(inputs[0][0].slice()); return true; }
});
"""
TAPPED = """
const connect = AudioNode.prototype.connect;
window.tapped = [];
AudioNode.prototype.connect = function (to, ...rest) {
  if (to instanceof AudioDestinationNode) {
    this.context.audioWorklet.addModule("/assets/tap.js").then(() => {
      const tap = new AudioWorkletNode(this.context, "tap", { numberOfOutputs: 0 });
      tap.port.onmessage = (event) => window.tapped.push(event.data);
      window.rate = this.context.sampleRate;
      connect.call(this, tap);
    });
  }
  return connect.call(this, to, ...rest);
};
window.recorded = () => {
  let text = "";
  for (const block of window.tapped) {
    for (const byte of new Uint8Array(block.buffer)) text += String.fromCharCode(byte);
  }
  return [window.rate, btoa(text)];
};
"""


OTHER_RATE = """() => {
  window.AudioContext = class extends AudioContext { constructor() { super({ sampleRate: 44100 }); } };
}"""


def played(tab: Tab) -> tuple[np.ndarray, int]:
    """What the loudspeaker was given, (W,) float32, and its rate."""
    rate, data = tab.page.evaluate("recorded()")
    return np.frombuffer(b64decode(data), np.float32), rate


def again(question: np.ndarray) -> list[np.ndarray | float]:
    """A question three times, with time for an answer after each."""
    return [question, 6.0, question, 6.0, question, 20.0]


def pairs(turns: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Questions with their answers."""
    return [(one, two) for one, two in pairwise(turns) if one["role"] == "user" and two["role"] == "assistant"]


def write_camera(path: Path, picture: Path) -> str:
    """A fake camera that looks at a picture. Returns Chromium's flag for it."""
    image = Image.open(picture).convert("RGB").resize((480, 480))
    frame = av.VideoFrame.from_image(image).reformat(format="yuv420p").to_ndarray().tobytes()
    path.write_bytes(b"YUV4MPEG2 W480 H480 F10:1 Ip A1:1 C420jpeg\n" + 10 * (b"FRAME\n" + frame))
    return f"--use-file-for-fake-video-capture={path}"


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


def test_a_spoken_question_is_answered_aloud_and_in_text(talk_of: Any, say: Callable[[str], np.ndarray]) -> None:
    with talk_of([1.0, *again(say(QUESTION))]) as tab:
        tab.page.click(".big-talk")
        tab.wait_state("Hearing you")
        tab.shot("listening")
        tab.wait_state("Speaking")
        tab.shot("speaking")
        assert tab.answered(ANSWER)
        tab.wait_state("Listening")
        tab.page.click("button.end")
        question, answer = next(pair for pair in pairs(tab.kept()) if pair[1]["text"] == ANSWER)
        assert question["spoken"] and question["sound"] and "heard" not in answer  # all of it was
        heard = WhisperEar().hear(*played(tab)).lower()
        assert re.search("(seven|7) plus (five|5)", heard), heard
        trace = answer["trace"]
        assert trace["spoke"] < trace["asked"] < trace["sent"] < trace["sound"] <= trace["played"] < trace["ended"]
        tab.page.locator("article.model button[aria-label=Timeline]").last.click()
        tab.shot("timeline")


def test_who_speaks_interrupts_within_200_ms_and_only_what_was_heard_stays(
    talk_of: Any, say: Callable[[str], np.ndarray]
) -> None:
    with talk_of([4.0, say(QUESTION), 20.0]) as tab:
        tab.page.click(".big-talk")
        tab.wait_state("Listening")
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
        sound, rate = played(tab)
        # what left for the loudspeaker before the cut is what the model was told was heard; where the sound ran out,
        # and in the pause after the cut, which is the longest, nothing is played: exact zeros
        sounding = np.flatnonzero(sound)
        longest = int(np.argmax(np.diff(sounding)))
        played_ms = 1000 * (longest + 1) / rate
        assert played_ms == pytest.approx(truncated["audio_end_ms"], abs=HEARD_WITHIN_MS)


def test_the_colour_in_front_of_the_camera_is_named(
    talk_of: Any, say: Callable[[str], np.ndarray], tmp_path: Path
) -> None:
    camera = write_camera(tmp_path / "camera.y4m", DEMO / "stars.png")
    with talk_of([3.0, say("what colour is it"), 20.0], camera) as tab:
        tab.page.click(".big-talk")
        tab.wait_state("Listening")
        tab.page.click("button[aria-label=Camera]")
        tab.page.wait_for_selector("video.preview")
        tab.wait_state("Speaking")
        tab.shot("camera")
        assert "blue" in tab.answer()
        frames = [event for event in tab.sent if event["type"] == "input_image_buffer.append"]
        assert 1 <= len(frames) <= 4  # while somebody speaks, and not before
        tab.wait_state("Listening")
        tab.ask("What colour is it?")
        assert "blue" in tab.answer(2)


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
