"""The decoders' input: token ids with their TMRoPE positions, and the media that fill some of them.

    ids         im_start user \\n  bos [A A A ... A] eos  im_end \\n
    positions   0        1    2   3    4 5 6 ... 52  53   54     55      three axes: time, height, width
    spans                             |<-- span -->|                     one pass of an encoder each

A prompt, a live turn while it grows, and a training example are all ``PromptTokens``. A conversation is a chain of them
(``concatenate``). Whoever keeps the cache of one chain and is given another asks ``unchanged`` how many tokens of it
still hold, and reads on from there. That one rule covers live input that grows, a louder moment that changes earlier
features, an answer that was cut off, and a turn that is dropped.

Axes: T tokens, K tokens of one span, D dim, M mel bins, F mel frames, N patches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor

DIGEST_BYTES = 16

MediaType = Literal["audio", "image", "video"]


@dataclass(frozen=True)
class PixelGrid:
    """Patches of one image or video in the official row order (merge blocks contiguous).

    patches (N, channels*temporal*patch*patch) float32, normalised; grid = (t, h, w) in patches, N = t*h*w.
    """

    patches: Tensor
    grid: tuple[int, int, int]


Content = Tensor | PixelGrid


@dataclass(frozen=True)
class EncoderInput:
    """The input of one pass of an encoder, and the number of tokens that it becomes.

    content: a log-mel (M, F) of at most one encoder block; or one image; or one temporal grid of a video. All on the
    CPU.
    """

    kind: MediaType
    content: Content
    tokens: int

    @cached_property
    def digest(self) -> bytes:
        """16 bytes that tell one content from another: equal digests have equal features."""
        grid = self.content if isinstance(self.content, PixelGrid) else None
        tensor = self.content if isinstance(self.content, Tensor) else self.content.patches
        shape = tuple(tensor.shape) if grid is None else grid.grid
        salt = repr(shape).encode()[:DIGEST_BYTES]
        return blake2b(tensor.contiguous().numpy().tobytes(), digest_size=DIGEST_BYTES, salt=salt).digest()


@dataclass(frozen=True)
class MediaSpan:
    """The tokens that one encoder pass fills: indices (K,) int64, ascending, 0 < K <= source.tokens.

    K is less than ``source.tokens`` only where the medium still grows, or where the prompt was cut inside the span.
    """

    indices: Tensor
    source: EncoderInput

    @property
    def first(self) -> int:
        return int(self.indices[0])

    @property
    def last(self) -> int:
        return int(self.indices[-1])


@dataclass(frozen=True)
class PromptTokens:
    """ids (T,) int64, with placeholders where media are; positions (3, T) int64, counted from 0; spans: in order.

    extent: the positions that they take: what follows them counts on from there (0: not known yet, they still grow).
    """

    ids: Tensor
    positions: Tensor
    extent: int
    spans: tuple[MediaSpan, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def next_position(self) -> int:
        """The position of the first generated token: one past the largest of all, as the reference counts."""
        return max(self.extent, int(self.positions.max()) + 1 if len(self.ids) else 0)

    def hash_media(self) -> None:
        """Compute the digests of all media now, on this thread."""
        for span in self.spans:
            _ = span.source.digest

    def head(self, count: int) -> PromptTokens:
        """The first ``count`` tokens; a span that goes on behind them has fewer."""
        spans = [replace(span, indices=span.indices[span.indices < count]) for span in self.spans if span.first < count]
        return PromptTokens(self.ids[:count], self.positions[:, :count], 0, tuple(spans))

    def with_reply(self, ids: Sequence[int]) -> PromptTokens:
        """These tokens and a reply behind them, one position each from ``next_position`` on."""
        start = self.next_position
        reply = torch.arange(start, start + len(ids)).expand(3, -1)
        return replace(
            self,
            ids=torch.cat([self.ids, torch.tensor(ids, dtype=torch.int64)]),
            positions=torch.cat([self.positions, reply], dim=1),
            extent=start + len(ids),
        )

    def indices(self, kind: MediaType | None = None) -> Tensor:
        """Of the tokens that media fill, of one kind or of all (None), (K,) int64, span by span."""
        spans = [span.indices for span in self.spans if kind in (None, span.source.kind)]
        return torch.cat([NO_TOKENS.ids, *spans])

    def filled(self) -> Tensor:
        """True where media fill a token, (T,) bool. A placeholder id that a reply wrote is text."""
        mask = torch.zeros(len(self), dtype=torch.bool)
        mask[self.indices()] = True
        return mask


NO_TOKENS = PromptTokens(torch.empty(0, dtype=torch.int64), torch.empty(3, 0, dtype=torch.int64), 0)


def text_tokens(ids: Sequence[int] | Tensor) -> PromptTokens:
    """Text: one position each."""
    return PromptTokens(torch.as_tensor(ids, dtype=torch.int64), torch.arange(len(ids)).expand(3, -1), len(ids))


def concatenate(chain: Sequence[PromptTokens]) -> PromptTokens:
    """One after another; the positions of each count on from the extent of those before it."""
    chain = [tokens for tokens in chain if len(tokens)]
    offsets = list(accumulate((len(tokens) for tokens in chain), initial=0))
    bases = list(accumulate((tokens.extent for tokens in chain), initial=0))
    spans = [
        replace(span, indices=span.indices + offset) for offset, tokens in zip(offsets, chain) for span in tokens.spans
    ]
    ids = torch.cat([NO_TOKENS.ids, *(tokens.ids for tokens in chain)])
    shifted = [tokens.positions + base for base, tokens in zip(bases, chain)]
    return PromptTokens(ids, torch.cat([NO_TOKENS.positions, *shifted], dim=1), bases[-1], tuple(spans))


def unchanged(before: PromptTokens, now: PromptTokens) -> int:
    """Count the leading tokens of ``before`` that still hold in ``now``: their ids, positions and the media in them."""
    count = min(len(before), len(now))
    same = (before.ids[:count] == now.ids[:count]) & (before.positions[:, :count] == now.positions[:, :count]).all(0)
    kept = count if bool(same.all()) else int(same.int().argmin())
    digests = {span.first: span.source.digest for span in now.spans}
    return min([kept, *(span.first for span in before.spans if digests.get(span.first) != span.source.digest)])


def place_features(embeds: Tensor, spans: Sequence[MediaSpan], features: Sequence[Tensor]) -> Tensor:
    """Put encoder features at the tokens of their spans. Differentiable; ``embeds`` is left as it was.

    embeds (T, D); features: (at least K, D) for each span, in the same order.
    """
    indices, rows = filled_rows(spans, features, 0, len(embeds))
    return embeds.index_copy(0, torch.cat(indices).to(embeds.device), torch.cat([embeds[:0], *rows]))


def filled_rows(
    spans: Sequence[MediaSpan], features: Sequence[Tensor], start: int, stop: int
) -> tuple[list[Tensor], list[Tensor]]:
    """The tokens of start .. stop - 1 that media fill: their indices, counted from ``start``, and their rows.

    features: (at least K, D) for each span, in the same order.
    """
    indices, rows = [torch.empty(0, dtype=torch.int64)], []
    for span, encoded in zip(spans, features, strict=True):
        first, last = (int((span.indices < edge).sum()) for edge in (start, stop))
        indices.append(span.indices[first:last] - start)
        rows.append(encoded[first:last])
    return indices, rows


def page_keys(tokens: PromptTokens, size: int, salt: bytes, known: Sequence[bytes] = ()) -> Iterator[bytes]:
    """One key for each full page of ``size`` tokens, made of what is in it and in all pages before it.

    salt: whose pages they are. known: the keys of the first pages, which are not made again.
    """
    first = len(known) * size
    fills = dict[int, bytes]()
    for span in tokens.spans:
        if span.last >= first:
            for place, index in enumerate(span.indices.tolist()):
                fills[index] = span.source.digest + place.to_bytes(4, "little")
    key = known[-1] if known else blake2b(salt, digest_size=DIGEST_BYTES).digest()
    for start in range(first, len(tokens) - size + 1, size):
        page = slice(start, start + size)
        parts = [key, tokens.ids[page].numpy().tobytes(), tokens.positions[:, page].contiguous().numpy().tobytes()]
        parts += [fills.get(index, b"") for index in range(start, start + size)]
        key = blake2b(b"".join(parts), digest_size=DIGEST_BYTES).digest()
        yield key
