"""The past of a decoder, as it asks for it. ``nn.pages`` keeps it, ``engine.graphs`` reads it in steps of one shape."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Cache(Protocol):
    """The keys and values of the tokens before, and what is seen of them: who keeps them knows where they lie.

    Axes: B rows, T new tokens of a row, Hq and Hk heads of queries and of keys, D dim of a head.
    """

    def attend(self, layer: int, q: Tensor, new: Tensor) -> Tensor:
        """Write the keys and values of the new tokens; attention of their queries to all that each of them may see.

        q (B, T, Hq, D) and new (B, T, 2, Hk, D), both turned to their positions -> (B, T, Hq * D).
        """
        ...


def keys_values(both: Tensor) -> tuple[Tensor, Tensor]:
    """(B, S, 2, H, D) -> keys and values as attention reads them, views (B, H, S, D) each."""
    keys, values = both.transpose(1, 3).unbind(2)
    return keys, values
