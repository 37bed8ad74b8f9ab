"""A camera: frames as they come, each with its time -> temporal grids of two frames, at 2 frames a second.

Sampled frame k belongs to the moment k / fps. It is the pushed frame nearest to that moment (the earlier of two as
near), and is chosen as soon as a frame of that moment or later arrives. So nothing still to come changes it, and the
equivalent message is ``Video(Clip(frames, fps=2))`` of the sampled frames. (A file is sampled by a linspace over its
whole length instead, which nobody can do before its end.) An odd last frame is shown with the latest one pushed.

Axes: H rows, W columns, N patches.
"""

from __future__ import annotations

import math

import numpy as np

from descant.checks import is_finite_number
from descant.config import InputsConfig
from descant.errors import MediaError, SessionError, shortened
from descant.inputs import door
from descant.inputs.image_file import Pixels
from descant.inputs.video import fitted_grid
from descant.inputs.video_file import fit_frame, frame_sizes
from descant.tokens import PixelGrid
from descant.types import Budget

MAX_TIME_S = 1_000_000  # eleven days: more is no time within a turn
_SLACK = 0.01  # of a sampled frame, 5 ms: a camera's clock that rounds to milliseconds is not late


class LiveFrames:
    """The pictures of one turn, as they come."""

    def __init__(self, inputs: InputsConfig, *, start: float | None = None, budget: Budget | None = None):
        """start: the moment of sampled frame 0 in s, at or before the first frame; None: that of the first frame."""
        self._inputs = inputs
        self._budget = budget or Budget()
        self._start = start
        self._size: tuple[int, int] | None = None  # (H, W) of what is pushed
        self._latest: tuple[Pixels, float] | None = None  # a frame as pushed, and its time in s
        self._sampled: list[Pixels] = []  # at their final size; one frame shown twice is held once
        self._closed: str | None = None  # why nothing more may come

    def push(self, image: object, at: float) -> None:
        """Take a frame: RGB (H, W, 3) uint8, a path, or the bytes of a picture; ``at`` in s, never less than before.

        A refused push leaves everything as it was. Raises MediaError: "video.bad_time", "video.size_changed",
        "video.too_many_frames" (also where more frames would make earlier ones smaller), and those of the door for a
        picture; SessionError after the end.
        """
        if self._closed is not None:
            raise SessionError(f"a frame was pushed after {self._closed}; expected none. Push it in a new turn.")
        self._check_time(at)
        if isinstance(image, np.ndarray):
            pixels = door.check_pixels(image, self._budget)
        else:
            pixels = door.open_image(image, self._budget)
        self._check_size(pixels.shape[0], pixels.shape[1])
        start = at if self._start is None else self._start
        due = math.floor((at - start) * self._inputs.fps + _SLACK) + 1  # sampled frames up to now
        self._check_count(pixels.shape[0], pixels.shape[1], due)
        self._start, self._size = start, (pixels.shape[0], pixels.shape[1])
        frame = pixels.copy()  # a camera may use its buffer again
        fitted: dict[bool, Pixels] = {}
        for place in range(len(self._sampled), due):
            moment = start + place / self._inputs.fps
            earlier = self._latest is not None and moment - self._latest[1] <= at - moment
            source = self._latest[0] if earlier and self._latest is not None else frame
            if earlier not in fitted:
                fitted[earlier] = fit_frame(source, 1, self._inputs)
            self._sampled.append(fitted[earlier])
        self._latest = frame, at

    def forget(self, seconds: float) -> None:
        """Forget the first ``seconds`` after the start, whole sampled frames: what is later counts from there."""
        frames = round(seconds * self._inputs.fps)
        del self._sampled[:frames]
        self._start = self.start + frames / self._inputs.fps

    @property
    def full(self) -> bool:
        """True if there are as many sampled frames as one turn may have."""
        return self._size is not None and len(self._sampled) >= self._most(*self._size)

    def finish(self) -> None:
        """End the pictures; the last grid is made whole. SessionError after the end."""
        if self._closed is not None:
            raise SessionError(f"the pictures were finished after {self._closed}; expected one end. Open a new turn.")
        missing = -len(self._sampled) % self._inputs.temporal_patch_size
        if self._latest is not None and missing:
            self._sampled += [fit_frame(self._latest[0], 1, self._inputs)] * missing
        self._closed, self._latest = "their end", None

    def cancel(self) -> None:
        """Drop everything. Harmless when repeated."""
        self._closed, self._latest = "the turn was cancelled", None
        self._sampled.clear()

    @property
    def start(self) -> float:
        """The moment of sampled frame 0 in s; 0 before there is one."""
        return self._start or 0.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(t, h, w) in patches of the grids that are there; t is 0 while there are none."""
        grids = len(self._sampled) // self._inputs.temporal_patch_size
        if not grids:
            return 0, 0, 0
        height, width = self._sampled[0].shape[:2]
        return grids, height // self._inputs.patch_size, width // self._inputs.patch_size

    def grid(self, index: int) -> PixelGrid:
        """Temporal grid ``index`` alone, (1, h, w): two frames. It never changes."""
        step = self._inputs.temporal_patch_size
        return fitted_grid(np.stack(self._sampled[index * step : (index + 1) * step]), self._inputs)

    # ---------------------------------------------------------------- refusals

    def _check_time(self, at: float) -> None:
        earliest = self._latest[1] if self._latest is not None else self._start
        if not is_finite_number(at) or at > MAX_TIME_S or (earliest is not None and at < earliest):
            floor = f"seconds up to {MAX_TIME_S:,}" if earliest is None else f"{earliest:g} s or later"
            raise MediaError(
                "video.bad_time",
                f"a frame was pushed at={shortened(at)}; expected {floor}. Push frames in order of time.",
            )

    def _check_size(self, height: int, width: int) -> None:
        if self._size is not None and self._size != (height, width):
            raise MediaError(
                "video.size_changed",
                f"frames of {self._size[1]} x {self._size[0]} are followed by one of {width} x {height}; expected one "
                "size in a turn. Scale it.",
            )

    def _check_count(self, height: int, width: int, due: int) -> None:
        """Refuse what makes too many frames, or so many that all would be seen smaller than those already given."""
        step = self._inputs.temporal_patch_size
        count = -(-due // step) * step
        sizes = (frame_sizes(height, width, n, self._inputs) for n in (count, 1))
        if count > self._inputs.max_frames or next(sizes) != next(sizes):
            raise MediaError(
                "video.too_many_frames",
                f"with this frame there would be {count} at {self._inputs.fps:g} a second; at most "
                f"{self._most(height, width)} of {width} x {height} are seen in a turn. Push smaller ones.",
            )

    def _most(self, height: int, width: int) -> int:
        """The most frames of a size that one turn takes."""
        step, first = self._inputs.temporal_patch_size, frame_sizes(height, width, 1, self._inputs)
        counts = range(self._inputs.max_frames // step * step, 0, -step)
        return next((n for n in counts if frame_sizes(height, width, n, self._inputs) == first), 0)
