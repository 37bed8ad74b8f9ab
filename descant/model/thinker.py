"""The Thinker: it reads text, sound and sight, and writes text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from descant.config import ThinkerConfig
from descant.errors import SessionError
from descant.model.audio import AudioEncoder
from descant.model.decoder import Decoder
from descant.model.vision import VisionEncoder
from descant.nn.cache import Cache, KVCache
from descant.nn.layers import Linear, linear
from descant.types import PixelGrid, Prompt


class Thinker(nn.Module):
    """Two encoders, a decoder and a text head (None when it is tied to the embedding table)."""

    def __init__(self, cfg: ThinkerConfig):
        super().__init__()
        self.cfg = cfg
        self.audio = AudioEncoder(cfg.audio)
        self.vision = VisionEncoder(cfg.vision)
        self.decoder = Decoder(cfg.text)
        self.lm_head: Linear | None = None
        if not cfg.text.tie_word_embeddings:
            self.lm_head = Linear(cfg.text.hidden_size, cfg.text.vocab_size, bias=False)

    @property
    def device(self) -> torch.device:
        """Where the weights are, and where inputs must be."""
        return self.decoder.embed_tokens.weight.device

    def new_cache(self) -> KVCache:
        """An empty cache for one session."""
        return self.decoder.new_cache()

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """ids (...) -> rows of the embedding table (..., D)."""
        rows: Tensor = self.decoder.embed_tokens(ids)
        return rows

    def media_mask(self, ids: Tensor) -> Tensor:
        """True where ids (...) is a placeholder of sound, image or video."""
        media = self.cfg.ids
        return (ids == media.audio) | (ids == media.image) | (ids == media.video)

    def embed(self, prompt: Prompt) -> Tensor:
        """What the decoder reads for one prompt, (T, D): embeddings with encoder rows at the placeholders."""
        return self.embed_many([prompt])[0]

    def embed_many(self, prompts: Sequence[Prompt]) -> list[Tensor]:
        """embed of each prompt; all media of all prompts go through the encoders in one batch (training)."""
        ids = torch.cat([prompt.ids for prompt in prompts]).to(self.device)
        rows = self.embed_tokens(ids)
        media = self.cfg.ids
        clips = [clip.to(self.device) for prompt in prompts for clip in prompt.audio]
        images = [image for prompt in prompts for image in prompt.images]
        videos = [video for prompt in prompts for video in prompt.videos]
        rows = place(rows, ids == media.audio, torch.cat(self.audio(clips)) if clips else None, "audio")
        seen = self.see([*images, *videos])
        rows = place(rows, ids == media.image, torch.cat(seen[: len(images)]) if images else None, "image")
        rows = place(rows, ids == media.video, torch.cat(seen[len(images) :]) if videos else None, "video")
        return list(torch.split(rows, [prompt.ids.numel() for prompt in prompts]))

    def encode(self, contents: Sequence[Tensor | PixelGrid]) -> list[Tensor]:
        """The encoders' rows (n, D) of each: a log-mel (M, F), an image or a video; in one pass of each encoder."""
        pictures = [content for content in contents if isinstance(content, PixelGrid)]
        clips = [content.to(self.device) for content in contents if isinstance(content, Tensor)]
        seen, heard = iter(self.see(pictures)), iter(self.audio(clips) if clips else [])
        return [next(seen) if isinstance(content, PixelGrid) else next(heard) for content in contents]

    def see(self, pictures: Sequence[PixelGrid]) -> list[Tensor]:
        """The vision encoder's rows of each picture or video, (t * h * w / 4, D) each, in one batch."""
        if not pictures:
            return []
        patches = torch.cat([picture.patches for picture in pictures]).to(self.device)
        rows: Tensor = self.vision(patches, [picture.grid for picture in pictures])
        unit = self.cfg.vision.spatial_merge_size**2
        return list(torch.split(rows, [picture.patches.shape[0] // unit for picture in pictures]))

    def forward(
        self, embeds: Tensor, positions: Tensor, cache: Cache | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Cache | None]:
        """embeds (B, T, D), positions (3, B, T) -> (hidden (B, T, D) after the final norm, cache); see Decoder."""
        out: tuple[Tensor, Cache | None] = self.decoder(embeds, positions, cache, mask)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden (..., D) -> text logits (..., V) float32."""
        if self.lm_head is None:
            return linear(hidden, self.decoder.embed_tokens.weight).float()
        out: Tensor = self.lm_head(hidden)
        return out.float()


def place(rows: Tensor, where: Tensor, features: Tensor | None, kind: str) -> Tensor:
    """rows (T, D) with features (K, D) at the K places where ``where`` (T,) is True, in order; differentiable."""
    places = int(where.sum())
    given = 0 if features is None else features.shape[0]
    if places != given:
        raise SessionError(
            f"the prompt has {places} {kind} placeholders but its media gave {given} rows: "
            "build prompts with build_prompt, which counts placeholders from the media"
        )
    if features is None or given == 0:
        return rows
    return rows.masked_scatter(where.unsqueeze(-1), features.to(rows.dtype))
