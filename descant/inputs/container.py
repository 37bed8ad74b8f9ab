"""FFmpeg behind a wall: one buffer, one named demuxer, the codecs on the list, no other file or address."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from descant.errors import MediaError
from descant.inputs.limits import AUDIO_CODECS, VIDEO_CODECS
from descant.inputs.structure import ends_early
from descant.types import MediaKind

# FLAC states its length in samples. The others are told by their structure, or (MP3, ADTS, Ogg) estimate the length,
# or cannot know it: of such a file that was cut off, as much is taken as is there.
_STATES_LENGTH = frozenset({"flac"})
_SLACK_S = 0.1
# Streams of frames that stand alone: players skip what is no frame (a tag between joined files, a scar), and go on.
_RESYNCS = frozenset({"mp3", "aac", "mpegts"})


@contextmanager
def opened(data: bytes | memoryview, form: str, kind: MediaKind) -> Iterator[InputContainer]:
    """An FFmpeg container over a buffer. Faults of FFmpeg inside the block become MediaError "<kind>.decode_failed".

    Raises MediaError "<kind>.truncated" when the file is shorter than its structure says.
    """
    if ends_early(data, form):
        _raise_truncated(kind, form)
    try:
        # a named format keeps FFmpeg from guessing a playlist, and io_open answers every wish for a second file
        container = av.open(io.BytesIO(data), mode="r", format=form, metadata_errors="replace", io_open=_refuse)
        with container:
            yield container
    except MemoryError:  # also FFmpeg's own
        raise
    except (av.FFmpegError, EOFError, ValueError, NotImplementedError) as error:
        raise MediaError(
            f"{kind}.decode_failed",
            f"the {kind} file is damaged or cut off ({type(error).__name__}); expected {form} data. Export it again.",
        ) from None


def _refuse(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise PermissionError("media may not open other files")


def sound_stream(container: InputContainer) -> AudioStream | None:
    """The sound that is heard: the default track, else the first, that can be read; None where there is no track.

    Raises MediaError ("audio.codec") when none can be read.
    """
    tracks = sorted(container.streams.audio, key=lambda track: not track.disposition & Disposition.default)
    for track in tracks:
        if is_sound_codec(_codec(track)):
            return track
    if not tracks:
        return None
    raise MediaError(
        "audio.codec",
        f"the sound is coded as {_codec(tracks[0])}; expected one of {', '.join(sorted(AUDIO_CODECS))}, PCM. "
        "Convert it: ffmpeg -i IN -c:a flac OUT.flac",
    )


def is_sound_codec(codec: str) -> bool:
    return codec in AUDIO_CODECS or codec.startswith("pcm_")


def picture_stream(container: InputContainer) -> VideoStream | None:
    """The first moving picture (cover art is none), or None. Raises MediaError ("video.codec")."""
    for stream in container.streams.video:
        if stream.disposition & Disposition.attached_pic:
            continue
        codec = _codec(stream)
        if codec not in VIDEO_CODECS:
            raise MediaError(
                "video.codec",
                f"the video is coded as {codec}; expected one of {', '.join(sorted(VIDEO_CODECS))}. "
                "Convert it: ffmpeg -i IN -c:v libx264 OUT.mp4",
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
    resyncs = form in _RESYNCS
    end = 0.0
    for packet in container.demux():
        if packet.is_corrupt and not resyncs:
            _raise_truncated(kind, form)
        if packet.pts is not None and packet.time_base is not None:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream.index not in wanted:
            continue
        for frame in _frames(packet, resyncs=resyncs):
            if isinstance(frame, AudioFrame | VideoFrame):
                yield frame
    if form in _STATES_LENGTH and container.duration is not None and end < container.duration / av.time_base - _SLACK_S:
        _raise_truncated(kind, form)


def _frames(packet: Packet[Any], *, resyncs: bool) -> Sequence[object]:
    """The frames of a packet; none of one that is no frame, in a stream that goes on behind it."""
    try:
        return packet.decode()
    except av.InvalidDataError:
        if resyncs:
            return ()
        raise


def _raise_truncated(kind: MediaKind, form: str) -> NoReturn:
    raise MediaError(
        f"{kind}.truncated",
        f"the {form} file ends before its header says; it seems cut off. Copy or download it again.",
    )
