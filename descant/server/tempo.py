"""Speech at another speed, at the same pitch: FFmpeg's filter ``atempo``, fed as the sound comes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import av
import numpy as np
import numpy.typing as npt
from av.error import EOFError as EndOfSound

from descant.config import OUTPUT_RATE_HZ

SLOWEST_STAGE = 0.5  # that one filter does; two of them are slower still


class Tempo:
    """Changes the speed of one stream of sound at 24 kHz. speed: 0.25 to 4; 1 changes nothing."""

    def __init__(self, speed: float):
        self._graph: av.filter.Graph | None = None
        if speed == 1:
            return
        graph = self._graph = av.filter.Graph()
        source = graph.add_abuffer(sample_rate=OUTPUT_RATE_HZ, format="flt", layout="mono")
        stages = [speed**0.5, speed**0.5] if speed < SLOWEST_STAGE else [speed]
        chain = [source, *(graph.add("atempo", f"{stage:.6f}") for stage in stages)]
        chain += [graph.add("aformat", "sample_fmts=flt"), graph.add("abuffersink")]
        for before, after in pairwise(chain):
            before.link_to(after)
        graph.configure()

    def push(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Samples (W,) in; those that are ready out."""
        if self._graph is None:
            return samples
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None], np.float32), "flt", "mono")
        frame.sample_rate = OUTPUT_RATE_HZ
        self._graph.push(frame)
        return self._ready()

    def finish(self) -> npt.NDArray[np.float32]:
        """The rest."""
        if self._graph is None:
            return np.zeros(0, np.float32)
        self._graph.push(None)
        return self._ready()

    def _ready(self) -> npt.NDArray[np.float32]:
        return np.concatenate([np.zeros(0, np.float32), *self._pulled()])

    def _pulled(self) -> Iterator[npt.NDArray[np.float32]]:
        assert self._graph is not None
        while True:
            try:
                frame = self._graph.pull()
            except (BlockingIOError, EndOfSound):
                return
            assert isinstance(frame, av.AudioFrame)
            yield frame.to_ndarray().reshape(-1).astype(np.float32, copy=False)
