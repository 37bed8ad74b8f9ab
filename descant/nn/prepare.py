"""Modules made fast for answering, when their weights are there."""

from __future__ import annotations

import os

from torch import nn


class Preparable(nn.Module):
    """A module that can be made faster once its weights are final."""

    def prepare(self) -> None:
        """Make this module fast, its submodules left out. Harmless when repeated."""
        raise NotImplementedError


def prepare(module: nn.Module) -> None:
    """Make ``module`` fast for answering: layers are fused, large weights packed, and what never changes is kept.

    Harmless when repeated. Its results differ by rounding alone. It is for nothing else afterwards: weights may not
    change, and on a CPU in float32 not even move, see ``linear.Linear``.

    oneDNN makes a kernel for each shape, in about a millisecond, and keeps 1024. A window of the vocoder has some 80,
    so that answers of several settings drove each other's out. Its cache is made larger here, unless the user says how
    large it is to be: oneDNN reads the variable once, before its first product.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4096")
    for part in list(module.modules()):  # a fused layer comes before the layers that it takes in
        if isinstance(part, Preparable):
            part.prepare()
