"""Decoding apart from pages: a plain cache of keys and values, one buffer a layer, and the positions of text."""

from __future__ import annotations

import torch
from torch import Tensor

from descant.nn.attention import causal_mask, grouped_attention
from descant.nn.cache import keys_values

_FIRST = 64  # tokens; the first allocation. Later ones double, so n appends copy O(n) values in total


class KVCache:
    """Keys and values per layer, (B, S, 2, H, D); the state that a session owns and passes to Decoder.forward.

    It writes in place into a buffer that grows by doubling, so a decode step never copies the past.
    valid (B, S) bool, S at least all tokens that come: True for those that are no padding.
    For inference only: writing in place and back-propagation exclude each other (train with ``cache=None``).
    """

    def __init__(self, num_layers: int, valid: Tensor | None = None):
        self._valid = valid
        self._layers: list[Tensor | None] = [None] * num_layers
        self._lengths = [0] * num_layers

    @classmethod
    def empty(cls, num_layers: int, valid: Tensor | None = None) -> KVCache:
        """A cache that has seen nothing."""
        return cls(num_layers, valid)

    @property
    def length(self) -> int:
        """Tokens that every layer has seen (the last layer is the last to append)."""
        return self._lengths[-1]

    def attend(self, layer: int, q: Tensor, new: Tensor) -> Tensor:
        """Add keys and values (B, T, 2, H, D) after the past of ``layer``; attention of q (B, T, Hq, D) to all."""
        start = self._lengths[layer]
        stop = start + new.shape[1]
        buffer = _room(self._layers[layer], new, start, stop)
        buffer[:, start:stop] = new
        self._layers[layer], self._lengths[layer] = buffer, stop
        valid = None if self._valid is None else self._valid[:, :stop]
        mask = causal_mask(new.shape[1], start, valid, new.device)
        causal = mask is None and new.shape[1] > 1
        return grouped_attention(q.transpose(1, 2), *keys_values(buffer[:, :stop]), mask, causal=causal)

    def truncate(self, length: int) -> None:
        """Forget everything after the first ``length`` tokens (an interrupted answer, a repeated prompt)."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate a cache of {self.length} tokens to {length}")
        self._lengths = [length] * len(self._lengths)


def _room(buffer: Tensor | None, new: Tensor, used: int, needed: int) -> Tensor:
    """A buffer (B, >= needed, 2, H, D) whose first ``used`` tokens are those of ``buffer``."""
    if buffer is not None and buffer.shape[1] >= needed:
        return buffer
    capacity = max(_FIRST, needed) if buffer is None else max(2 * buffer.shape[1], needed)
    grown = new.new_empty(len(new), capacity, *new.shape[2:])
    if buffer is not None:
        grown[:, :used] = buffer[:, :used]
    return grown


def sequential_positions(batch: int, start: int, length: int) -> Tensor:
    """Text positions: start, start + 1, ... on all three axes, (3, batch, length) int64."""
    return torch.arange(start, start + length).expand(3, batch, length)
