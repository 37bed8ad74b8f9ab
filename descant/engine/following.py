"""Steps that follow each other on the device: each reads the ids that the one before it has drawn, and the host, which
waits for none of them between, learns them at the end.

Noise belongs to (seed, step, id) and pages are known beforehand, so that the host needs no id to lay the next step out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from descant.engine.graphs import DecodeStep, Stepped, StepRow


def step_on(step: DecodeStep, rows: Sequence[StepRow], states: Sequence[Sequence[Tensor]]) -> list[Stepped]:
    """A step of these rows, and one more for each of ``states`` ((E,) of each row), over the ids drawn before it.

    Only for samplers that need nothing of the host (``Sampler.follows``). Tables, samplers and the marks of what was
    seen are left as one step leaves them: an id counts when it is kept, and the whole can be made again.
    """
    if not states:
        return [step(rows)]
    table, ahead = step.draws, 0
    lent = torch.tensor([table.row(row.sampler) for row in rows]).to(table.seen.device)  # sent while nothing is queued
    made = [step(rows)]
    seen = table.seen.index_select(0, lent)
    try:
        for more in states:
            ahead += 1
            for row in rows:
                row.table.advance(1)
                row.sampler.step += 1
            pairs = zip(rows, more, strict=True)
            later = [replace(row, position=row.position + ahead, state=state) for row, state in pairs]
            made.append(step(later, made[-1].ids))
    finally:
        table.seen.index_copy_(0, lent, seen)
        for row in rows:
            row.table.length -= ahead
            row.sampler.step -= ahead
    return made
