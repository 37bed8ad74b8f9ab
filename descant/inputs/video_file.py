"""Video files -> the sampled frames at their final size, and the sound. No tensor library: this runs in the decoder
process.

Axes: T frames, H rows, W columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from descant.config import InputsConfig
from descant.errors import MediaError
from descant.inputs.audio_file import Collector, Samples
from descant.inputs.container import decoded_frames, opened, picture_stream, sound_stream
from descant.inputs.image_file import Pixels, resize, smart_resize
from descant.types import Budget, Clip


def sample_frames(times: npt.NDArray[np.float64], rate: float, inputs: InputsConfig) -> list[int]:
    """Indices of the sampled frames, ascending, an even number.

    times (T,): timestamps in seconds, ascending; rate: the nominal frames a second. The count is duration * fps, at
    least ``min_frames``, rounded down to even. At constant rate it is at most T, and the indices are the linspace of
    the authors' utilities; only where the rate is below ``fps`` frames are shown several times, so that the clock of
    TMRoPE stays right (the utilities take each once, and a second is then half a second). Otherwise each sample takes
    the frame whose time is nearest, so that a screen recording that stood still is not sped up. A single frame is shown
    twice.
    Raises MediaError: "video.no_frames"; "video.too_many_frames" over ``max_frames`` (the utilities thin out instead,
    which bends the clock that positions are computed by).
    """
    total = len(times)
    if total == 0:
        raise MediaError(
            "video.no_frames", "the video has no frames; expected at least one. Record or convert it again."
        )
    if total == 1:
        return [0] * inputs.temporal_patch_size
    if _is_steady(times, rate):
        if rate >= inputs.fps:
            wanted = min(max(total / rate * inputs.fps, inputs.min_frames), total)
            return evenly(total, _frame_count(wanted, total / rate, inputs))
        duration = total * float(times[-1] - times[0]) / (total - 1)  # some files state the rate of all but the last
        return evenly(total, _frame_count(max(round(duration * inputs.fps), inputs.min_frames), duration, inputs))
    duration = float(times[-1] - times[0] + np.median(np.diff(times)))  # the last frame is shown for a while, too
    count = _frame_count(max(duration * inputs.fps, inputs.min_frames), duration, inputs)
    moments = np.linspace(times[0], times[-1], count)
    after = np.clip(np.searchsorted(times, moments), 1, total - 1)
    nearer = np.where(moments - times[after - 1] <= times[after] - moments, after - 1, after)
    return [int(i) for i in nearer]


def evenly(total: int, count: int) -> list[int]:
    """``count`` indices from 0 to total - 1: ``torch.linspace(0, total - 1, count).round()``, to the last bit.

    torch counts from both ends, and multiplies and adds with one rounding in float32.
    """
    step = float(np.float32(total - 1) / np.float32(count - 1))
    places = np.arange(count)
    values = np.where(places < count // 2, step * places, total - 1 - step * (count - 1 - places))
    return [int(i) for i in np.round(values.astype(np.float32))]


def _is_steady(times: npt.NDArray[np.float64], rate: float) -> bool:
    """True if every frame is within half a frame of where a constant rate puts it."""
    return bool(np.all(np.abs(times - times[0] - np.arange(len(times)) / rate) < 0.5 / rate))


def _frame_count(wanted: float, duration: float, inputs: InputsConfig) -> int:
    step = inputs.temporal_patch_size
    count = max(math.floor(wanted / step), 1) * step
    if count > inputs.max_frames:
        raise MediaError(
            "video.too_many_frames",
            f"the video lasts {duration:.1f} s, which is {count} frames at {inputs.fps:g} a second; at most "
            f"{inputs.max_frames} are seen ({inputs.max_frames / inputs.fps:g} s). Cut it into shorter pieces.",
        )
    return count


def fit_frame(frame: Pixels, count: int, inputs: InputsConfig) -> Pixels:
    """A frame (H, W, 3) uint8 at the size that a video of ``count`` sampled frames is seen at; long ones are smaller.

    Twice, like pictures: by the authors' utilities, whose ceiling shares the video's total pixels among its frames,
    then by the processor. The resampler is Pillow's, as for pictures. The processor's own (torchvision's uint8 kernel)
    rounds elsewhere, at most two grey levels apart; the utilities resize in float32, which differs more at steep edges.
    """
    height, width = frame.shape[:2]
    for size in frame_sizes(height, width, count, inputs):
        frame = resize(frame, size)
    return frame


def frame_sizes(height: int, width: int, count: int, inputs: InputsConfig) -> tuple[tuple[int, int], tuple[int, int]]:
    """The two sizes (height, width) that a frame of ``count`` is brought to, one after the other."""
    factor = inputs.patch_size * inputs.merge_size
    share = inputs.video_total_pixels / count * inputs.temporal_patch_size
    ceiling = max(min(inputs.video_max_pixels, share), int(inputs.video_min_pixels * 1.05))
    size = smart_resize(height, width, factor, inputs.video_min_pixels, ceiling, at_least=factor)
    return size, smart_resize(*size, factor, inputs.video_min_pixels, inputs.video_max_pixels)


MIN_SOUND_S = 0.03  # 3 mel frames: less makes no token


def decode_video(
    data: bytes | memoryview, form: str, inputs: InputsConfig, budget: Budget, *, with_sound: bool | None
) -> Clip:
    """Bytes of a file of format ``form`` (limits.VIDEO_FORMATS) -> the sampled frames at their final size, the sound.

    Two passes: which frames are sampled hangs on the timestamps of all, and holding all frames would hang memory on the
    length of the video. The sound starts with the first frame: silence is put before it, or its lead-in is cut. A sound
    track in which there is nothing gives no sound (None).
    """
    survey = _survey(data, form, inputs, budget, with_sound=with_sound)
    chosen = sample_frames(survey.times, survey.rate, inputs)
    wanted, kept = frozenset(chosen), dict[int, Pixels]()
    size: tuple[int, int] | None = None
    with opened(data, form, "video") as container:
        stream = _need_pictures(container, budget)
        for index, frame in enumerate(decoded_frames(container, [stream], form, "video")):
            if index in wanted and isinstance(frame, VideoFrame):
                size = size or (frame.width, frame.height)  # a later change of resolution is scaled back
                kept[index] = fit_frame(_upright(frame.reformat(*size)), len(chosen), inputs)
    return Clip(np.stack([kept[index] for index in chosen]), inputs.fps, survey.sound)


@dataclass(frozen=True)
class _Survey:
    """The findings of the first pass: timestamps (T,) in seconds, the nominal rate, and the sound on that clock."""

    times: npt.NDArray[np.float64]
    rate: float  # frames a second
    sound: Samples | None


def _survey(
    data: bytes | memoryview, form: str, inputs: InputsConfig, budget: Budget, *, with_sound: bool | None
) -> _Survey:
    times: list[float] = []
    collector = Collector(budget)
    with opened(data, form, "video") as container:
        pictures = _need_pictures(container, budget)
        sound = None if with_sound is False else sound_stream(container)
        if with_sound and sound is None:
            raise MediaError(
                "video.no_sound", "the video has no sound but use_audio was asked for. Set use_audio=False."
            )
        rate = float(pictures.average_rate or pictures.guessed_rate or inputs.fps)
        for frame in decoded_frames(container, [pictures, sound] if sound else [pictures], form, "video"):
            if isinstance(frame, VideoFrame):
                _add_time(times, frame, rate, budget)
            else:
                collector.add(frame)
    samples = None
    if collector.count and times:
        samples = _on_clock(collector.samples(inputs.sampling_rate), collector.start, times[0], inputs, budget)
    if samples is not None and len(samples) < MIN_SOUND_S * inputs.sampling_rate:
        samples = None  # a track without a sound, or one that ends before the first picture
    return _Survey(np.asarray(times), rate, samples)


def _need_pictures(container: InputContainer, budget: Budget) -> VideoStream:
    stream = picture_stream(container)
    if stream is None:
        raise MediaError("video.no_stream", "the file holds no moving pictures; expected a video track. Is it a sound?")
    context = stream.codec_context
    _check_pixels(context.width, context.height, budget)
    context.options = {"max_pixels": str(budget.frame_pixels)}  # the decoder itself refuses a frame that grows later
    return stream


def _check_pixels(width: int, height: int, budget: Budget) -> None:
    if width * height > budget.frame_pixels:
        raise MediaError(
            "video.too_many_pixels",
            f"the video has frames of {width} x {height}; at most {budget.frame_pixels:,} are decoded. Shrink it.",
        )


def _add_time(times: list[float], frame: VideoFrame, rate: float, budget: Budget) -> None:
    """Note when a frame is shown; a missing or backward timestamp follows from the frame before."""
    _check_pixels(frame.width, frame.height, budget)
    time = frame.time
    if time is None or not math.isfinite(time):
        time = times[-1] + 1 / rate if times else 0.0
    times.append(max(time, times[-1]) if times else time)
    if times[-1] - times[0] > budget.video_s:
        raise MediaError(
            "video.too_long", f"the video lasts over {budget.video_s:g} s; no more is seen. Cut it into shorter pieces."
        )
    if len(times) > budget.frames:
        raise MediaError(
            "video.too_many_frames",
            f"the video has over {budget.frames:,} frames; no more are decoded. Lower its frame rate.",
        )


def _on_clock(samples: Samples, start: float | None, first: float, inputs: InputsConfig, budget: Budget) -> Samples:
    """Sound that starts at ``start`` s, on the clock of pictures that start at ``first`` s."""
    ahead = 0 if start is None else round((start - first) * inputs.sampling_rate)  # samples of silence, or of lead-in
    if ahead < 0:
        samples = samples[-ahead:]
    if ahead + len(samples) > budget.audio_s * inputs.sampling_rate:
        raise MediaError(
            "audio.too_long",
            f"the sound of the video ends after more than {budget.audio_s:g} s; no more is heard. Cut it into pieces.",
        )
    return np.pad(samples, (max(ahead, 0), 0))


def _upright(frame: VideoFrame) -> Pixels:
    """One frame -> RGB (H, W, 3), turned as its display matrix says (counter-clockwise, in quarters)."""
    pixels = np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
    return np.ascontiguousarray(np.rot90(pixels, frame.rotation // 90))
