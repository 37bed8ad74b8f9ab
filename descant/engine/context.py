"""What one conversation has in the caches of both decoders, and what of its rows is still to be read.

    rows      [ system | user ... assistant | reply | user ... ]      what the caches are to hold
    thought   ==================================>                     read by the Thinker
    sung      =====================>                                  read by the Talker, row for row behind it

While it answers, the Thinker goes on behind the rows with its reply, and the Talker with codes. Afterwards the Talker
forgets its codes, and reads the reply as part of the prompt: its rows (hidden + embedding) were kept, so that nothing
of an earlier turn passes through the Thinker again.

Axes: T rows, D the Thinker's width, G tokens of a reply.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from descant.errors import SessionError
from descant.inputs.rows import NOTHING, Rows, Unit, page_keys, text_rows, unchanged
from descant.model.thinker import Thinker
from descant.nn.pages import Table


class Context:
    """One conversation's share of the stores. tenant: whose pages may be shared with whom."""

    def __init__(self, thought: Table, sung: Table | None, tenant: str = ""):
        self.thought, self.sung, self.tenant = thought, sung, tenant
        self.rows = NOTHING
        self.replied: list[Tensor] = []  # (D,) each: rows that the Talker is behind, from ``sung.length`` on
        self._keys: list[bytes] = []  # of the first full pages
        self._features: dict[int, Tensor] = {}  # by first row: encoded, and not yet read to their end

    @property
    def base(self) -> int:
        """The position of the first token of a reply: one past the largest, as the reference counts."""
        return max(self.rows.span, int(self.rows.positions.max()) + 1 if len(self.rows) else 0)

    @property
    def behind(self) -> int:
        """Rows that the Thinker has read and the Talker has not."""
        return self.thought.length - self.sung.length if self.sung is not None else 0

    @property
    def unread(self) -> int:
        """Rows that one of the two has not read."""
        return len(self.rows) - self.thought.length + self.behind

    @property
    def encoded(self) -> int:
        """Encoder rows that are held."""
        return sum(len(rows) for rows in list(self._features.values()))

    @property
    def tables(self) -> list[Table]:
        return [self.thought] if self.sung is None else [self.thought, self.sung]

    def lay(self, rows: Rows) -> None:
        """From now on these are the rows; what was read of others is forgotten from the first difference on."""
        kept = unchanged(self.rows, rows)
        self.rows = rows
        self._features = {first: features for first, features in self._features.items() if first < kept}
        self._rewind(kept)

    def reopen(self) -> None:
        """The last row is read again, if it was read already: what it says begins the answer."""
        self._rewind(len(self.rows) - 1)

    def _rewind(self, length: int) -> None:
        for table in self.tables:
            table.truncate(min(table.length, length))
        del self.replied[max(0, self.behind) :]
        del self._keys[length // self.thought.store.size :]

    def answered(self, ids: Sequence[int], kept: Sequence[Tensor]) -> None:
        """A reply has ended: what the Thinker read of it becomes rows, for the Talker ``kept`` (D,) of each."""
        prompt, read = len(self.rows), self.thought.length - len(self.rows)
        if read < 0:  # it was over before it began, and the Talker may still be behind with the reply before it
            return
        reply, base = text_rows(ids[:read]), self.base
        positions = torch.cat([self.rows.positions, reply.positions + base], dim=1)
        self.rows = Rows(torch.cat([self.rows.ids, reply.ids]), positions, base + read, self.rows.units)
        if self.sung is not None:
            self.sung.truncate(min(prompt, self.sung.length))
            self.replied = list(kept[:read])

    def free(self) -> None:
        """Give everything back; the rows can be read again. Doing it twice is harmless."""
        for table in self.tables:
            table.free()
        self._features.clear()
        self.replied.clear()

    # ---------------------------------------------------------------- reading

    def embeds(self, thinker: Thinker, start: int, stop: int) -> Tensor:
        """What the decoder reads at rows start .. stop - 1, (T, D): embeddings, with features where media are.

        A unit is encoded when its first row is read, together with all others that are due.
        """
        out = thinker.embed_tokens(self.rows.ids[start:stop].to(thinker.device))
        here = [u for u in self.rows.units if int(u.rows[0]) < stop and int(u.rows[-1]) >= start]
        due = [u for u in here if int(u.rows[0]) not in self._features]
        for unit, features in zip(due, thinker.encode([u.content for u in due]), strict=True):
            self._features[int(unit.rows[0])] = checked(unit, features)
        for unit in here:
            inside = (unit.rows >= start) & (unit.rows < stop)
            features = self._features[int(unit.rows[0])][: len(unit.rows)]
            out[(unit.rows[inside] - start).to(out.device)] = features[inside.to(out.device)].to(out.dtype)
            if int(unit.rows[-1]) < stop:
                del self._features[int(unit.rows[0])]
        return out

    def media(self, start: int, stop: int) -> Tensor:
        """Which of rows start .. stop - 1 are filled by media, (T,) bool. A placeholder that a reply wrote is text."""
        filled = torch.zeros(len(self.rows), dtype=torch.bool)
        for unit in self.rows.units:
            filled[unit.rows] = True
        return filled[start:stop]

    # ---------------------------------------------------------------- sharing

    def adopt(self) -> int:
        """Take over what others have read of the same beginning; the last row is always left. Returns rows adopted."""
        if any(table.pages for table in self.tables):
            return 0
        keys = self._page_keys()[: (len(self.rows) - 1) // self.thought.store.size]
        shared = min(table.adopt(keys) for table in self.tables)
        for table in self.tables:
            table.truncate(shared)
        return shared

    def publish(self) -> None:
        """Let others adopt the full pages of what was read."""
        for table in self.tables:
            table.publish(self._page_keys())

    def _page_keys(self) -> list[bytes]:
        self._keys += page_keys(self.rows, self.thought.store.size, self.tenant.encode(), self._keys)
        return self._keys


def checked(unit: Unit, features: Tensor) -> Tensor:
    """Features that fill all rows of their unit."""
    if len(features) < len(unit.rows):
        raise SessionError(f"an encoder gave {len(features)} rows for {len(unit.rows)} placeholders")
    return features
