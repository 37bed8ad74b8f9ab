"""What a decoder asks of its past: the keys and values of the tokens before. ``nn.pages`` keeps them."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Cache(Protocol):
    """What a decoder asks of its past: how long it is, and to add to one layer and give all of it."""

    @property
    def length(self) -> int:
        """Tokens before the ones that are being passed now."""
        ...

    def append(self, layer: int, new: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values (B, T, 2, H, D); returns all of that layer, (B, H, S, D) each."""
        ...


def keys_values(both: Tensor) -> tuple[Tensor, Tensor]:
    """(B, S, 2, H, D) -> keys and values as attention reads them, views (B, H, S, D) each."""
    keys, values = both.transpose(1, 3).unbind(2)
    return keys, values
