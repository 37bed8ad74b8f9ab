"""The keys and values that one session has seen, for one decoder."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

_FIRST = 64  # tokens; the first allocation. Later ones double, so n appends copy O(n) values in total


class Cache(Protocol):
    """What a decoder asks of its past: how long it is, and to add to one layer and give all of it."""

    @property
    def length(self) -> int:
        """Tokens before the ones that are being passed now."""
        ...

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add k, v (B, H, T, D); returns all of that layer, (B, H, S, D) each."""
        ...


class KVCache:
    """Keys and values per layer, (B, H, S, D) each; the state that a session owns and passes to Decoder.forward.

    ``append`` writes in place into a buffer that grows by doubling, so a decode step never copies the past.
    For inference only: writing in place and back-propagation exclude each other (train with ``cache=None``).
    """

    def __init__(self, num_layers: int):
        self._keys: list[Tensor | None] = [None] * num_layers
        self._values: list[Tensor | None] = [None] * num_layers
        self._lengths = [0] * num_layers

    @classmethod
    def empty(cls, num_layers: int) -> KVCache:
        """A cache that has seen nothing."""
        return cls(num_layers)

    @property
    def length(self) -> int:
        """Tokens that every layer has seen (the last layer is the last to append)."""
        return self._lengths[-1]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add k, v (B, H, T, D) after the past of ``layer``; returns all of it, two views (B, H, S, D)."""
        start = self._lengths[layer]
        stop = start + k.shape[2]
        keys = _room(self._keys[layer], k, start, stop)
        values = _room(self._values[layer], v, start, stop)
        keys[:, :, start:stop] = k
        values[:, :, start:stop] = v
        self._keys[layer], self._values[layer], self._lengths[layer] = keys, values, stop
        return keys[:, :, :stop], values[:, :, :stop]

    def truncate(self, length: int) -> None:
        """Forget everything after the first ``length`` tokens (an interrupted answer, a repeated prompt)."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate a cache of {self.length} tokens to {length}")
        self._lengths = [length] * len(self._lengths)


def _room(buffer: Tensor | None, new: Tensor, used: int, needed: int) -> Tensor:
    """A buffer (B, H, >= needed, D) whose first ``used`` tokens are those of ``buffer``."""
    if buffer is not None and buffer.shape[2] >= needed:
        return buffer
    capacity = max(_FIRST, needed) if buffer is None else max(2 * buffer.shape[2], needed)
    batch, heads, _, dim = new.shape
    grown = torch.empty((batch, heads, capacity, dim), dtype=new.dtype, device=new.device)
    if buffer is not None:
        grown[:, :, :used] = buffer[:, :, :used]
    return grown
