"""Prompts whose media are found by searching for placeholders: what the walk of ``inputs.layout`` is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from descant.config import MediaIds
from descant.inputs.layout import AudioSeg, AudioVideoSeg, ImageSeg, Segment, VideoSeg
from descant.inputs.prompt import encoder_input
from descant.tokens import Content, EncoderInput, MediaSpan, MediaType, PixelGrid, PromptTokens


def found_tokens(
    ids: Tensor,
    positions: Tensor,
    names: MediaIds,
    *,
    audio: Sequence[Tensor] = (),
    images: Sequence[PixelGrid] = (),
    videos: Sequence[PixelGrid] = (),
) -> PromptTokens:
    """ids (T,), positions (3, T), and whole media in order of appearance: each fills the next of its placeholders."""
    spans: list[MediaSpan] = []
    media: list[tuple[MediaType, int, Sequence[Content]]] = [
        ("audio", names.audio, audio),
        ("image", names.image, images),
        ("video", names.video, videos),
    ]
    for kind, index, contents in media:
        places = torch.nonzero(ids == index)[:, 0]
        for content in contents:
            source: EncoderInput = encoder_input(kind, content, 2)
            spans.append(MediaSpan(places[: source.tokens], source))
            places = places[source.tokens :]
        assert not len(places), f"{len(places)} {kind} placeholders have no media"
    extent = int(positions.max()) + 1
    return PromptTokens(ids, positions, extent, tuple(sorted(spans, key=lambda span: span.first)))


def media_mask(ids: Tensor, names: MediaIds) -> Tensor:
    """True where ids (...) is a placeholder of sound, image or video."""
    return (ids == names.audio) | (ids == names.image) | (ids == names.video)


def unfilled(segment: Segment, merge: int = 2) -> list[EncoderInput]:
    """Media without content, one for each stream of a segment: for tests that look at ids and positions alone."""
    sources: list[EncoderInput] = []
    if isinstance(segment, ImageSeg | VideoSeg | AudioVideoSeg):
        tokens = segment.t * (segment.h // merge) * (segment.w // merge)
        sources.append(EncoderInput("image" if isinstance(segment, ImageSeg) else "video", torch.empty(0), tokens))
    if isinstance(segment, AudioSeg | AudioVideoSeg):
        tokens = segment.tokens if isinstance(segment, AudioSeg) else segment.audio
        sources.append(EncoderInput("audio", torch.empty(0), tokens))
    return sources
