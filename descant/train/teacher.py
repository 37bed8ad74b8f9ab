"""The Talker's rows of a whole answer at once, as training lays them out; the engine makes the same one by one.

Rows are those of ``model.talker``. Axes: P prompt tokens, G reply tokens, C codes, E the Thinker's width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from descant.model.talker import Talker, first_row, speaker_row, step_row


def text_stream(reply: Tensor, tail: Tensor, steps: int) -> Tensor:
    """The first ``steps`` text rows after the first reply row: reply[1:], text end, text pad, text pad, ...

    reply (G, E): reply_rows of every token the Thinker read back (the stop token is never read back, so it has none).
    """
    stream = torch.cat((reply[1:], tail))[:steps]
    missing = steps - stream.shape[0]
    return torch.cat((stream, tail[-1:].expand(missing, -1))) if missing > 0 else stream


def opening_rows(talker: Talker, prompt: Tensor, bos_embed: Tensor, first_reply: Tensor) -> Tensor:
    """The Talker's prefill, (P + 2, E): prompt rows (P, E), speaker row, first row. Its last logits draw code 0."""
    speaker = speaker_row(talker, bos_embed).unsqueeze(0)
    return torch.cat((prompt, speaker, first_row(talker, first_reply).unsqueeze(0)))


def teacher_rows(talker: Talker, opening: Tensor, stream: Tensor, codes: Tensor) -> Tensor:
    """All rows of a spoken answer at once, for training, (P + 2 + C - 1, E).

    opening (P + 2, E); codes (C,) with the end code last; stream (>= C - 1, E). The logits of row P + 1 + i are to
    predict codes[i].
    """
    steps = codes.shape[0] - 1
    return torch.cat((opening, step_row(talker, codes[:steps], stream[:steps])))
