"""Messages -> Prompt: the chat template gives pieces, each piece becomes a segment, one walk lays them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from descant.config import InputsConfig, MediaIds
from descant.errors import MediaError, OptionError
from descant.inputs import door
from descant.inputs.audio import Samples, audio_tokens, log_mel
from descant.inputs.image import image_grid
from descant.inputs.layout import AudioSeg, AudioVideoSeg, ImageSeg, Segment, TextSeg, VideoSeg, layout, next_position
from descant.inputs.messages import read_messages
from descant.inputs.template import Piece, Special, render
from descant.inputs.tokenizer import Tokenizer
from descant.inputs.video import fitted_grid, sample_clip, seconds_per_grid, video_grid
from descant.types import Audio, Budget, ChatInput, Clip, Image, PixelGrid, Prompt, Video


def build_prompt(
    messages: ChatInput,
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
    pieces = render(read_messages(messages), inputs, speech=speech, generate=generate)
    return media.prompt([media.segment(piece) for piece in pieces], ids)


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
