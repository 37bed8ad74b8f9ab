"""FFmpeg behind a wall: one buffer, one named demuxer, the codecs on the list, no other file or address."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from descant.errors import MediaError
from descant.inputs.limits import AUDIO_CODECS, VIDEO_CODECS
from descant.types import MediaKind

# Containers whose header states the length in time. The others (MP3, ADTS, Ogg) estimate it, or cannot know: of such a
# file that was cut off, as much is taken as is there.
_STATES_LENGTH = frozenset({"mov", "matroska", "flac", "aiff"})
_SLACK_S = 0.1  # edit lists and padding make honest files end a little before their stated length


@contextmanager
def opened(data: bytes, form: str, kind: MediaKind) -> Iterator[InputContainer]:
    """An FFmpeg container over a buffer. Faults of FFmpeg inside the block become MediaError "<kind>.decode_failed"."""
    try:
        # a named format keeps FFmpeg from guessing a playlist, and io_open answers every wish for a second file
        container = av.open(io.BytesIO(data), mode="r", format=form, metadata_errors="replace", io_open=_refuse)
        with container:
            yield container
    except (av.FFmpegError, EOFError, ValueError, MemoryError, NotImplementedError) as error:
        raise MediaError(
            f"{kind}.decode_failed",
            f"the {kind} file is damaged or cut off ({type(error).__name__}); expected {form} data. Export it again.",
        ) from None


def _refuse(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise PermissionError("media may not open other files")


def sound_stream(container: InputContainer) -> AudioStream | None:
    """The first sound, or None. Raises MediaError ("audio.codec")."""
    if not container.streams.audio:
        return None
    stream = container.streams.audio[0]
    codec = _codec(stream)
    if codec not in AUDIO_CODECS and not codec.startswith("pcm_"):
        raise MediaError(
            "audio.codec", f"the sound is coded as {codec}; expected one of {', '.join(sorted(AUDIO_CODECS))}, PCM."
        )
    return stream


def picture_stream(container: InputContainer) -> VideoStream | None:
    """The first moving picture (cover art is none), or None. Raises MediaError ("video.codec")."""
    for stream in container.streams.video:
        if stream.disposition & Disposition.attached_pic:
            continue
        codec = _codec(stream)
        if codec not in VIDEO_CODECS:
            raise MediaError(
                "video.codec", f"the video is coded as {codec}; expected one of {', '.join(sorted(VIDEO_CODECS))}."
            )
        return stream
    return None


def _codec(stream: AudioStream | VideoStream) -> str:
    context = stream.codec_context
    return "unknown" if context is None else context.codec.canonical_name


def decoded_frames(
    container: InputContainer, streams: list[AudioStream | VideoStream], form: str, kind: MediaKind
) -> Iterator[AudioFrame | VideoFrame]:
    """Decoded frames of the streams, in file order. Raises MediaError "<kind>.truncated" when the file stops early."""
    wanted = {stream.index for stream in streams}
    end, before = 0.0, dict[int, int]()
    for packet in container.demux():
        if packet.is_corrupt:
            _raise_truncated(kind, form)
        index = packet.stream.index
        if packet.pts is not None and packet.time_base is not None:
            # Matroska leaves out the length of most packets: then it is the step from the one before
            length = packet.duration or packet.pts - before.get(index, packet.pts)
            before[index] = packet.pts
            end = max(end, float((packet.pts + length) * packet.time_base))
        if index in wanted:
            for frame in packet.decode():
                if isinstance(frame, AudioFrame | VideoFrame):
                    yield frame
    if form in _STATES_LENGTH and container.duration is not None:
        start = max(container.start_time or 0, 0)
        if end < (start + container.duration) / av.time_base - _SLACK_S:
            _raise_truncated(kind, form)


def _raise_truncated(kind: MediaKind, form: str) -> NoReturn:
    raise MediaError(
        f"{kind}.truncated",
        f"the {form} file ends before its header says; it seems cut off. Copy or download it again.",
    )
