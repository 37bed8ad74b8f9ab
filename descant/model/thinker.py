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
from descant.nn.cache import Cache
from descant.nn.linear import Linear, linear
from descant.tokens import EncoderInput, PixelGrid, PromptTokens, place_features


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

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """ids (...) -> rows of the embedding table (..., D)."""
        rows: Tensor = self.decoder.embed_tokens(ids)
        return rows

    def embed(self, prompts: Sequence[PromptTokens]) -> list[Tensor]:
        """The decoder's input for each prompt, (T, D): embeddings, with encoder features where media are.

        All media of all prompts pass the encoders in one batch. Differentiable.
        """
        embeds = torch.split(
            self.embed_tokens(torch.cat([prompt.ids for prompt in prompts]).to(self.device)),
            [len(prompt) for prompt in prompts],
        )
        features = iter(self.encode([span.source for prompt in prompts for span in prompt.spans]))
        return [
            place_features(rows, prompt.spans, [next(features) for _ in prompt.spans])
            for rows, prompt in zip(embeds, prompts, strict=True)
        ]

    def encode(self, inputs: Sequence[EncoderInput]) -> list[Tensor]:
        """The encoders' features (n, D) of each input, in one pass of each encoder.

        SessionError when an encoder gives another number of rows than the prompt has tokens for.
        """
        pictures = [one.content for one in inputs if isinstance(one.content, PixelGrid)]
        blocks = [one.content.to(self.device) for one in inputs if isinstance(one.content, Tensor)]
        seen, heard = iter(self.see(pictures)), iter(self.audio(blocks) if blocks else [])
        features = [next(seen) if isinstance(one.content, PixelGrid) else next(heard) for one in inputs]
        for one, rows in zip(inputs, features, strict=True):
            if len(rows) != one.tokens:
                raise SessionError(f"the {one.kind} encoder gave {len(rows)} rows for {one.tokens} tokens")
        return features

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
    ) -> Tensor:
        """embeds (B, T, D), positions (3, B, T) -> hidden (B, T, D) after the final norm; see Decoder."""
        hidden: Tensor = self.decoder(embeds, positions, cache, mask)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden (..., D) -> text logits (..., V) float32."""
        if self.lm_head is None:
            return linear(hidden, self.decoder.embed_tokens.weight).float()
        out: Tensor = self.lm_head(hidden)
        return out.float()
