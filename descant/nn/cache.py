"""The past of a decoder, as it asks for it: keys and values of the tokens before. ``nn.pages`` keeps them."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Cache(Protocol):
    """The past of a decoder: how long it is, and a way to add to one layer and get all of it."""

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
