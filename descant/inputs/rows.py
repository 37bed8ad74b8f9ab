"""Rows: what the decoders read, one for each token, with the media that fill some of them.

    ids         im_start user \n  bos [A A A ... A] eos  im_end \n         positions: TMRoPE, counted from 0
    units                             |<- unit ->|                         one pass of an encoder each

A conversation is a chain of rows (``joined``). Whoever keeps the past of one chain and is given another asks
``unchanged`` how much of it still holds, and reads on from there: that is all there is to live input that grows,
to a louder moment that changes what was heard before it, to an answer that was cut off, and to a turn that is dropped.

Axes: T rows (tokens), M mel bins, F mel frames, N patches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from descant.config import ThinkerConfig
from descant.errors import SessionError
from descant.inputs.audio import audio_tokens
from descant.types import PixelGrid, Prompt

Content = Tensor | PixelGrid  # a log-mel (M, F) of at most one block; one image, or one temporal grid of a video


@dataclass(frozen=True)
class Unit:
    """What one pass of an encoder fills: rows (n,) int64, ascending. Equal digests have equal features; a unit may
    still have fewer rows than its content makes, while it grows."""

    rows: Tensor
    content: Content
    digest: bytes


@dataclass(frozen=True)
class Rows:
    """ids (T,) int64, positions (3, T) int64 counted from 0; span: the positions they take (0: not known yet)."""

    ids: Tensor
    positions: Tensor
    span: int
    units: tuple[Unit, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def head(self, count: int) -> Rows:
        """The first ``count`` rows; a unit that goes on behind them has fewer."""
        units = [replace(unit, rows=unit.rows[unit.rows < count]) for unit in self.units if int(unit.rows[0]) < count]
        return Rows(self.ids[:count], self.positions[:, :count], 0, tuple(units))


NOTHING = Rows(torch.empty(0, dtype=torch.int64), torch.empty(3, 0, dtype=torch.int64), 0)


def text_rows(ids: Sequence[int]) -> Rows:
    """Rows of text: one position each."""
    return Rows(torch.tensor(ids, dtype=torch.int64), torch.arange(len(ids)).expand(3, -1), len(ids))


def joined(chain: Sequence[Rows]) -> Rows:
    """One after another: positions go on where the rows before end."""
    chain = [rows for rows in chain if len(rows)]
    starts = accumulate((len(rows) for rows in chain), initial=0)
    bases = list(accumulate((rows.span for rows in chain), initial=0))
    units = [replace(u, rows=u.rows + start) for start, rows in zip(starts, chain) for u in rows.units]
    ids = torch.cat([NOTHING.ids, *(rows.ids for rows in chain)])
    positions = torch.cat([NOTHING.positions, *(rows.positions + at for at, rows in zip(bases, chain))], dim=1)
    return Rows(ids, positions, bases[-1], tuple(units))


def unchanged(before: Rows, now: Rows) -> int:
    """How many leading rows of ``before`` still hold in ``now``: ids, positions and what fills them."""
    count = min(len(before), len(now))
    same = (before.ids[:count] == now.ids[:count]) & (before.positions[:, :count] == now.positions[:, :count]).all(0)
    kept = count if bool(same.all()) else int(same.int().argmin())
    digests = {int(unit.rows[0]): unit.digest for unit in now.units}
    broken = [int(u.rows[0]) for u in before.units if digests.get(int(u.rows[0])) != u.digest]
    return min([kept, *broken])


def rows_of(prompt: Prompt, cfg: ThinkerConfig) -> Rows:
    """A whole prompt as rows. SessionError when placeholders and media do not agree."""
    ids, patches = cfg.ids, cfg.vision.spatial_merge_size**2
    seen = {ids.image: prompt.images, ids.video: [grid for video in prompt.videos for grid in grids_of(video)]}
    contents: dict[int, list[tuple[Content, int]]] = {
        index: [(grid, len(grid.patches) // patches) for grid in grids] for index, grids in seen.items()
    }
    heard = [mel for clip in prompt.audio for mel in _blocks(clip, 2 * cfg.audio.n_window)]
    contents[ids.audio] = [(mel, audio_tokens(mel.shape[1])) for mel in heard]
    units: list[Unit] = []
    for index, filled in contents.items():
        places, given = torch.nonzero(prompt.ids == index)[:, 0], sum(count for _, count in filled)
        if given != len(places):
            raise SessionError(
                f"the prompt has {len(places)} placeholders of id {index} but its media give {given} rows: "
                "build prompts with build_prompt, which counts placeholders from the media"
            )
        shares = dealt(places, [count for _, count in filled])
        units += [Unit(rows, content, digest(content)) for rows, (content, _) in zip(shares, filled) if len(rows)]
    units.sort(key=lambda unit: int(unit.rows[0]))
    return Rows(prompt.ids, prompt.positions, prompt.next_position, tuple(units))


def dealt(rows: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Rows dealt out in turn to takers of so many; the last ones may get fewer, or none."""
    return [rows[a:b] for a, b in pairwise(accumulate(sizes, initial=0))]


def grids_of(video: PixelGrid) -> list[PixelGrid]:
    """The temporal grids (1, h, w) of a video: nothing that the vision encoder computes crosses from one to another."""
    t, h, w = video.grid
    return [PixelGrid(patches, (1, h, w)) for patches in torch.split(video.patches, h * w)] if t > 1 else [video]


def digest(content: Content) -> bytes:
    """16 bytes that tell one content from another."""
    tensor = content.patches if isinstance(content, PixelGrid) else content
    shape = content.grid if isinstance(content, PixelGrid) else tuple(content.shape)
    return blake2b(tensor.contiguous().numpy().tobytes(), digest_size=16, salt=repr(shape).encode()[:16]).digest()


def page_keys(rows: Rows, size: int, salt: bytes, known: Sequence[bytes] = ()) -> Iterator[bytes]:
    """One key for each full page of ``size`` rows: what is in it, and in all pages before it. salt: whose they are.

    known: the keys of the first pages, which are not made again.
    """
    first, fills = len(known) * size, dict[int, bytes]()
    for unit in rows.units:
        if int(unit.rows[-1]) >= first:
            for place, row in enumerate(unit.rows.tolist()):
                fills[row] = unit.digest + place.to_bytes(4, "little")
    key = known[-1] if known else blake2b(salt, digest_size=16).digest()
    for start in range(first, len(rows) - size + 1, size):
        page = slice(start, start + size)
        told = [rows.ids[page].numpy().tobytes(), rows.positions[:, page].contiguous().numpy().tobytes()]
        told += [fills.get(row, b"") for row in range(start, start + size)]
        key = blake2b(b"".join([key, *told]), digest_size=16).digest()
        yield key


def _blocks(clip: Tensor, block: int) -> list[Tensor]:
    """The blocks of a clip (M, F), where each becomes whole tokens and so can be encoded alone."""
    return [clip] if block % 4 else list(torch.split(clip, block, dim=1))
