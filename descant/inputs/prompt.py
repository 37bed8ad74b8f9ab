"""Messages -> PromptTokens: the chat template gives pieces, and each piece is laid out with its media."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from descant.config import InputsConfig, ThinkerConfig, audio_tokens
from descant.errors import OptionError, SessionError
from descant.inputs import door
from descant.inputs.audio import log_mel
from descant.inputs.audio_file import Samples
from descant.inputs.image import image_grid
from descant.inputs.layout import AudioSeg, AudioVideoSeg, ImageSeg, VideoSeg, lay_out
from descant.inputs.messages import read_messages
from descant.inputs.template import Piece, Special, render
from descant.inputs.tokenizer import Tokenizer, check_unicode
from descant.inputs.video import fitted_grid, sample_clip, seconds_per_grid, video_grid
from descant.tokens import EncoderInput, MediaType, PixelGrid, PromptTokens, concatenate, text_tokens
from descant.tools import Tool
from descant.types import Audio, Budget, ChatInput, Clip, Image, Video


@dataclass(frozen=True)
class PromptBuilder:
    """Lays out what one model reads: its tokenizer, how its media are prepared, its ids, and what media may cost.

    mel_transform: applied to the whole log-mel (M, F) of each clip (training distorts some).
    """

    tokenizer: Tokenizer
    inputs: InputsConfig
    cfg: ThinkerConfig
    budget: Budget = field(default_factory=Budget)
    mel_transform: Callable[[Tensor], Tensor] | None = None

    def with_budget(self, budget: Budget | None) -> PromptBuilder:
        """The same with other limits on media; None: these."""
        return self if budget is None else replace(self, budget=budget)

    def build(
        self, messages: ChatInput, *, speech: bool, generate: bool = True, tools: Sequence[Tool] = ()
    ) -> PromptTokens:
        """Everything the Thinker reads for a conversation, on the CPU.

        speech: the answer will be spoken (chooses the default system turn). generate: open the assistant's turn at the
        end. tools: that the model may call. Raises MediaError for media that are refused, OptionError for messages that
        make no sense.
        """
        read = read_messages(messages)
        return self.write(render(read, self.inputs, speech=speech, generate=generate, tools=tools))

    def write(self, pieces: Sequence[Piece]) -> PromptTokens:
        """Pieces of the template, one after another from position 0."""
        check_text(pieces, self.budget)
        return concatenate([self.piece(piece) for piece in pieces])

    def piece(self, piece: Piece) -> PromptTokens:
        """One piece of the template, from position 0. Media are read here.

        SessionError: there is not enough memory for it.
        """
        try:
            return self._piece(piece)
        except MemoryError:
            raise SessionError(
                "there is not enough memory to read the message; give smaller media, or try again when others are done"
            ) from None

    def _piece(self, piece: Piece) -> PromptTokens:
        match piece:
            case str():
                return text_tokens(self.tokenizer.encode(piece))
            case Special():
                return text_tokens([self.tokenizer.special(piece.name)])
            case Image():
                return self._image(piece)
            case Audio():
                return self._audio(piece)
            case Video():
                return self._video(piece)

    def _image(self, part: Image) -> PromptTokens:
        source = part.source
        if isinstance(source, np.ndarray):
            pixels = door.check_pixels(source, self.budget)
        else:
            pixels = door.open_image(source, self.budget, self.inputs)
        grid = image_grid(pixels, self.inputs)
        picture = encoder_input("image", grid, self.inputs.merge_size)
        return lay_out(ImageSeg(*grid.grid), self.cfg.ids, self.inputs.merge_size, [picture])

    def _audio(self, part: Audio) -> PromptTokens:
        rate = self.inputs.sampling_rate
        if isinstance(part.source, np.ndarray):
            samples = door.check_samples(part.source, part.rate, rate, self.budget)
        elif part.rate is not None:
            raise OptionError(
                f"rate={part.rate} was given with an audio file; a file knows its own rate. Leave it out."
            )
        else:
            samples = door.open_audio(part.source, rate, self.budget)
        sound = self._blocks(samples)
        segment = AudioSeg(sum(block.tokens for block in sound))
        return lay_out(segment, self.cfg.ids, self.inputs.merge_size, sound)

    def _video(self, part: Video) -> PromptTokens:
        inputs = self.inputs
        if isinstance(part.source, Clip):
            clip = door.check_clip(part.source, inputs.sampling_rate, self.budget, with_sound=part.use_audio)
            grid = video_grid(sample_clip(clip.frames, clip.fps, inputs), inputs)
        else:
            clip = door.open_video(part.source, inputs, self.budget, with_sound=part.use_audio)
            grid = fitted_grid(clip.frames, inputs)
        seconds, merge = seconds_per_grid(inputs), inputs.merge_size
        pictures = [encoder_input("video", one, merge) for one in temporal_grids(grid)]
        if part.use_audio is False or clip.sound is None:  # asked for, and there is a track, but nothing in it
            return lay_out(VideoSeg(*grid.grid, seconds), self.cfg.ids, merge, pictures)
        sound = self._blocks(clip.sound)
        segment = AudioVideoSeg(*grid.grid, seconds, sum(block.tokens for block in sound))
        return lay_out(segment, self.cfg.ids, merge, [*pictures, *sound])

    def _blocks(self, samples: Samples) -> list[EncoderInput]:
        """The encoder's blocks of a sound; one whole where a block would not become whole tokens."""
        mel, frames = log_mel(samples, self.inputs), self.cfg.audio.block_frames
        if self.mel_transform is not None:
            mel = self.mel_transform(mel)
        blocks = [mel] if frames % 4 else torch.split(mel, frames, dim=1)
        inputs = [encoder_input("audio", block, self.inputs.merge_size) for block in blocks]
        return [block for block in inputs if block.tokens]  # an end of under 3 frames makes no token


def check_text(pieces: Sequence[Piece], budget: Budget, beside: int = 0) -> None:
    """Refuse text that is no valid Unicode, or too long to be tokenised. beside: characters that are there already."""
    texts = [piece for piece in pieces if isinstance(piece, str)]
    size = beside + sum(len(check_unicode(text)) for text in texts)
    if size > budget.text_bytes:
        raise OptionError(
            f"the text has {size:,} bytes; at most {budget.text_bytes:,} are read at once. Cut it into parts."
        )


def encoder_input(kind: MediaType, content: Tensor | PixelGrid, merge: int) -> EncoderInput:
    """A log-mel (M, F), an image or one temporal grid, with the tokens it makes."""
    if isinstance(content, PixelGrid):
        return EncoderInput(kind, content, len(content.patches) // merge**2)
    return EncoderInput(kind, content, audio_tokens(content.shape[1]))


def temporal_grids(video: PixelGrid) -> list[PixelGrid]:
    """The temporal grids (1, h, w) of a video: nothing that the vision encoder computes crosses from one to another."""
    t, h, w = video.grid
    return [PixelGrid(patches, (1, h, w)) for patches in torch.split(video.patches, h * w)] if t > 1 else [video]
