"""Messages -> Prompt: the chat template gives pieces, each piece becomes a segment, one walk lays them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from descant.config import InputsConfig, MediaIds
from descant.errors import MediaError, OptionError
from descant.inputs import door
from descant.inputs.audio import Samples, audio_tokens, log_mel
from descant.inputs.image import image_grid
from descant.inputs.layout import AudioSeg, AudioVideoSeg, ImageSeg, Segment, TextSeg, VideoSeg, layout, next_position
from descant.inputs.limits import Budget
from descant.inputs.template import ROLES, Piece, Special, render
from descant.inputs.tokenizer import Tokenizer
from descant.inputs.video import fitted_grid, sample_clip, seconds_per_grid, video_grid
from descant.types import Audio, Clip, Image, Message, Part, PixelGrid, Prompt, Text, Video


def build_prompt(
    messages: Sequence[Message],
    tokenizer: Tokenizer,
    inputs: InputsConfig,
    ids: MediaIds,
    *,
    speech: bool,
    generate: bool = True,
    budget: Budget | None = None,
) -> Prompt:
    """Everything the Thinker reads for a conversation, on the CPU.

    speech: the answer will be spoken (chooses the default system turn). generate: open the assistant's turn at the end.
    Raises MediaError for media that are refused, OptionError for messages that make no sense.
    """
    media = Media(tokenizer, inputs, budget or Budget())
    return media.prompt([media.segment(p) for p in render(messages, inputs, speech=speech, generate=generate)], ids)


@dataclass
class Media:
    """Pieces to segments: features of the media met so far, each list in order of appearance."""

    tokenizer: Tokenizer
    inputs: InputsConfig
    budget: Budget
    audio: list[Tensor] = field(default_factory=list)
    images: list[PixelGrid] = field(default_factory=list)
    videos: list[PixelGrid] = field(default_factory=list)

    def segment(self, piece: Piece) -> Segment:
        """The segment of one piece of the template."""
        match piece:
            case str():
                return TextSeg(self.tokenizer.encode(piece))
            case Special():
                return TextSeg([self.tokenizer.special(piece.name)])
            case Image():
                return self.add_image(piece)
            case Audio():
                return self.add_audio(piece)
            case Video():
                return self.add_video(piece)

    def prompt(self, segments: Sequence[Segment], ids: MediaIds) -> Prompt:
        """The segments laid out, with the features met so far."""
        token_ids, positions = layout(segments, ids, self.inputs.merge_size)
        media = tuple(self.audio), tuple(self.images), tuple(self.videos)
        return Prompt(token_ids, positions, next_position(positions), *media)

    def add_image(self, part: Image) -> ImageSeg:
        source = part.source
        pixels = door.check_pixels(source) if isinstance(source, np.ndarray) else door.open_image(source, self.budget)
        grid = image_grid(pixels, self.inputs)
        self.images.append(grid)
        return ImageSeg(*grid.grid)

    def add_audio(self, part: Audio) -> AudioSeg:
        rate = self.inputs.sampling_rate
        if isinstance(part.source, np.ndarray):
            return AudioSeg(self._add_sound(door.check_samples(part.source, part.rate, rate, self.budget)))
        if part.rate is not None:
            raise OptionError(
                f"rate={part.rate} was given with an audio file; a file knows its own rate. Leave it out."
            )
        return AudioSeg(self._add_sound(door.open_audio(part.source, rate, self.budget)))

    def add_video(self, part: Video) -> VideoSeg | AudioVideoSeg:
        inputs = self.inputs
        if isinstance(part.source, Clip):
            clip = door.check_clip(part.source, inputs.sampling_rate, self.budget, with_sound=part.use_audio)
            grid = video_grid(sample_clip(clip.frames, clip.fps, inputs), inputs)
        else:
            clip = door.open_video(part.source, inputs, self.budget, with_sound=part.use_audio)
            grid = fitted_grid(clip.frames, inputs)
        self.videos.append(grid)
        if not part.use_audio:
            return VideoSeg(*grid.grid, seconds_per_grid(inputs))
        if clip.sound is None:
            raise MediaError(
                "video.no_sound", "the clip has no sound but use_audio was asked for. Set use_audio=False."
            )
        return AudioVideoSeg(*grid.grid, seconds_per_grid(inputs), self._add_sound(clip.sound))

    def _add_sound(self, samples: Samples) -> int:
        features = log_mel(samples, self.inputs)
        self.audio.append(features)
        return audio_tokens(features.shape[1])


# ---------------------------------------------------------------- the official model card's form of a conversation


def from_card(conversation: object) -> list[Message]:
    """Messages from the model card's JSON form: a list of {"role": ..., "content": text or list of typed parts}.

    Parts: {"type": "text", "text": ...}, {"type": "image", "image": path}, {"type": "audio", "audio": path},
    {"type": "video", "video": path, "use_audio_in_video": bool (optional)}. Unknown keys and types raise OptionError.
    """
    if not isinstance(conversation, list) or not conversation:
        raise OptionError(f"a conversation is a non-empty list of messages, not {_kind(conversation)}")
    return [_card_message(message, f"message {place}") for place, message in enumerate(conversation)]


def _card_message(message: object, where: str) -> Message:
    row = _card_row(message, where, required=("role", "content"))
    role, content = row["role"], row["content"]
    if role not in ROLES:
        raise OptionError(f"{where}: unknown role {role!r}; expected one of {', '.join(ROLES)}")
    if isinstance(content, str):
        return Message(role, (Text(content),))
    if not isinstance(content, list):
        raise OptionError(f"{where}: 'content' is {_kind(content)}; expected a string or a list of parts")
    return Message(role, tuple(_card_part(part, f"{where}, part {place}") for place, part in enumerate(content)))


def _card_part(part: object, where: str) -> Part:
    if not isinstance(part, Mapping) or part.get("type") not in ("text", "image", "audio", "video"):
        given = repr(part.get("type")) if isinstance(part, Mapping) else _kind(part)
        raise OptionError(f"{where}: expected an object with 'type' text, image, audio or video, not {given}")
    kind: str = part["type"]
    optional = ("use_audio_in_video",) if kind == "video" else ()
    row = _card_row(part, where, required=("type", kind), optional=optional)
    value, use_audio = row[kind], row.get("use_audio_in_video", False)
    if not isinstance(value, str):
        raise OptionError(
            f"{where}: {kind!r} is {_kind(value)}; expected a string" + ("" if kind == "text" else " (a path)")
        )
    if not isinstance(use_audio, bool):
        raise OptionError(f"{where}: 'use_audio_in_video' is {_kind(use_audio)}; expected true or false")
    parts: dict[str, Part] = {
        "text": Text(value),
        "image": Image(value),
        "audio": Audio(value),
        "video": Video(value, use_audio),
    }
    return parts[kind]


def _card_row(row: object, where: str, *, required: Sequence[str], optional: Sequence[str] = ()) -> Mapping[str, Any]:
    if not isinstance(row, Mapping):
        raise OptionError(f"{where}: expected an object, not {_kind(row)}")
    missing = [key for key in required if key not in row]
    unknown = [str(key) for key in row if key not in (*required, *optional)]
    if missing or unknown:
        fault = f"lacks {missing[0]!r}" if missing else f"has the unknown key {unknown[0]!r}"
        allowed = ", ".join((*required, *optional))
        raise OptionError(f"{where} {fault}; the keys are {allowed}")
    return row


def _kind(value: object) -> str:
    """What a JSON value is called in an error."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
