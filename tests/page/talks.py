"""What a talk in a browser needs: a fake camera, a question said again, and what the loudspeaker was given."""

from __future__ import annotations

from base64 import b64decode
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

QUESTION = "What is seven plus five?"
ANSWER = "Seven plus five is twelve."

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


def played(page: Any) -> tuple[np.ndarray, int]:
    """What the loudspeaker was given, (W,) float32, and its rate."""
    rate, data = page.evaluate("recorded()")
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
