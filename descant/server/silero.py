"""Silero's voice activity detection: one network for all microphones of a server (extra ``[vad]``).

It reads 32 ms of sound at 16 kHz at a time, with 4 ms of what was before and a state of its own, and says how sure it
is that somebody speaks. Source: silero-vad 6 (MIT), whose package carries the ONNX file; run by onnxruntime.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import soxr

from descant.errors import OptionError
from descant.server.vad import LoudnessScorer, TurnDetector, VadSettings

if TYPE_CHECKING:
    import onnxruntime

Detection = Literal["auto", "silero", "loudness"]
NET_RATE_HZ = 16_000
WINDOW_SAMPLES = 512
CONTEXT_SAMPLES = 64
STATE_SHAPE = (2, 1, 128)
MODEL_FILE = "silero_vad_16k_op15.onnx"


def model_path() -> Path | None:
    """The network's file; None: the extra is not installed."""
    spec = find_spec("silero_vad")
    if spec is None or not spec.submodule_search_locations or find_spec("onnxruntime") is None:
        return None
    path = Path(spec.submodule_search_locations[0]) / "data" / MODEL_FILE
    return path if path.is_file() else None


@cache
def shared_model() -> onnxruntime.InferenceSession:
    """The one network of this process. It keeps nothing of a microphone; whoever asks brings the state. Raises
    OptionError."""
    path = model_path()
    if path is None:
        raise OptionError("there is no silero-vad here: pip install 'descant[vad]', or use vad=loudness")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # a window takes 0.1 ms
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class SileroScorer:
    """The judge of one microphone."""

    frame_s = WINDOW_SAMPLES / NET_RATE_HZ

    def __init__(self, rate: int):
        self.size = round(rate * self.frame_s)
        self._model = shared_model()
        self._resampler = None if rate == NET_RATE_HZ else soxr.ResampleStream(rate, NET_RATE_HZ, 1, "float32", "LQ")
        self._state = np.zeros(STATE_SHAPE, np.float32)
        self._sound = np.zeros(CONTEXT_SAMPLES, np.float32)  # the context, and what waits for a whole window
        self._score = 0.0

    def score(self, frame: npt.NDArray[np.float32], *, speaking: bool) -> float:
        """The last window's probability. The resampler holds a few ms back, so a window may come a frame late."""
        sound = frame if self._resampler is None else self._resampler.resample_chunk(frame)
        self._sound = np.concatenate([self._sound, sound])
        whole = CONTEXT_SAMPLES + WINDOW_SAMPLES
        while len(self._sound) >= whole:
            inputs = {"input": self._sound[None, :whole], "state": self._state, "sr": np.array(NET_RATE_HZ, np.int64)}
            probability, self._state = self._model.run(None, inputs)
            self._score = float(probability[0, 0])
            self._sound = self._sound[WINDOW_SAMPLES:]
        return self._score


def detector(kind: Detection, rate: int, settings: VadSettings) -> TurnDetector:
    """The detector of one microphone at ``rate`` Hz. auto: silero's where its extra is there. Raises OptionError."""
    if kind == "silero" or (kind == "auto" and model_path() is not None):
        return TurnDetector(SileroScorer(rate), settings)
    return TurnDetector(LoudnessScorer(rate), settings)
