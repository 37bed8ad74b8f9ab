"""A paged key/value cache: one store a decoder, shared by all sessions; a past that is the same is kept once.

Pages of a fixed number of tokens are lent to tables, one table a session, and counted: a page goes back when nobody
refers to it. Every full page can be known by a key (what its tokens are, and all that came before them), so that a
session that begins alike adopts the pages of another (Kwon et al., 2023, arXiv 2309.06180).
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from descant.errors import BusyError
from descant.nn.cache import keys_values

PADDING_PAGE = 0  # the page that nobody owns: zeros, read where a shorter session of a batch has no past


class PageStore:
    """The store: per layer keys and values (slots, 2, H, D), a slot being one token of one page.

    limit: pages that may be in use at once, the padding page not counted. The tensors grow by doubling up to it.
    """

    def __init__(self, layers: int, heads: int, dim: int, *, size: int, limit: int, like: Tensor):
        self.size, self.limit = size, limit
        self.layers = [like.new_zeros(2 * size, 2, heads, dim) for _ in range(layers)]
        self._counts = [1, 0]  # references to each page
        self._free = [1]  # a heap, so that neighbours are lent together and a lone session's past is one slice
        self._known: OrderedDict[bytes, int] = OrderedDict()  # key -> page, one reference each; oldest first

    @property
    def used(self) -> int:
        """Pages that tables refer to."""
        return len(self._counts) - 1 - len(self._free) - self.remembered

    @property
    def remembered(self) -> int:
        """Pages that are kept for their key alone, and given up when the room is needed."""
        return sum(self._counts[page] == 1 for page in list(self._known.values()))

    def take(self) -> int:
        """One page, owned by the caller. BusyError when all are in use."""
        if not self._free and len(self._counts) <= self.limit:
            self._grow()
        if not self._free:
            self._forget_one()
        page = heapq.heappop(self._free)
        self._counts[page] = 1
        return page

    def keep(self, page: int) -> int:
        """One more reference to a page."""
        self._counts[page] += 1
        return page

    def release(self, page: int) -> None:
        """One reference less; the last one frees the page."""
        if self._counts[page] < 1:
            raise RuntimeError(f"page {page} was released more often than it was taken")
        self._counts[page] -= 1
        if not self._counts[page]:
            heapq.heappush(self._free, page)

    def shared(self, page: int) -> bool:
        return self._counts[page] > 1

    def own(self, page: int) -> int:
        """A page with the same content that nobody else refers to: this one, or a copy. Takes the reference over."""
        if not self.shared(page):
            return page
        if self.used >= self.limit and self._counts[page] == 2:
            self._disown(page)  # no room for a copy; and if it is only a key that refers to it, none is needed
            if not self.shared(page):
                return page
        fresh = self.take()
        old, new = (slice(p * self.size, (p + 1) * self.size) for p in (page, fresh))
        for store in self.layers:
            store[new] = store[old]
        self.release(page)
        return fresh

    def know(self, key: bytes, page: int) -> None:
        """Remember a full page by what is in it. The first page of a key stays."""
        if key not in self._known:
            self._known[key] = self.keep(page)

    def find(self, key: bytes) -> int | None:
        """The page of a key, or None."""
        page = self._known.get(key)
        if page is not None:
            self._known.move_to_end(key)
        return page

    def check(self, tables: Sequence[PageTable]) -> None:
        """Deep check: every reference is a table's or a key's, and every other page is free."""
        counts = [0] * len(self._counts)
        counts[PADDING_PAGE] = 1
        for page in [page for table in tables for page in table.pages] + list(self._known.values()):
            counts[page] += 1
        free = {page for page, count in enumerate(counts) if not count}
        if counts != self._counts or free != set(self._free) or len(self._free) != len(free):
            raise RuntimeError(f"pages are out of order: counted {counts}, booked {self._counts}, free {self._free}")

    def _grow(self) -> None:
        pages = min(2 * len(self._counts), self.limit + 1)
        for layer, store in enumerate(self.layers):
            grown = store.new_zeros(pages * self.size, *store.shape[1:])
            grown[: len(store)] = store
            self.layers[layer] = grown
        for page in range(len(self._counts), pages):
            heapq.heappush(self._free, page)
        self._counts += [0] * (pages - len(self._counts))

    def _disown(self, page: int) -> None:
        """Forget the key of a page, if it has one."""
        for key in [key for key, known in self._known.items() if known == page]:
            del self._known[key]
            self.release(page)

    def _forget_one(self) -> None:
        for key, page in self._known.items():
            if self._counts[page] == 1:
                del self._known[key]
                self.release(page)
                return
        raise BusyError(f"all {self.limit} pages of the key/value cache are in use; end a session or raise the limit")


class PageTable:
    """The pages of one session, in order, and how many tokens of them are written."""

    def __init__(self, store: PageStore):
        self.store = store
        self.pages: list[int] = []
        self.length = 0
        self._slots = torch.empty(0, dtype=torch.long)

    def slots(self, start: int, stop: int) -> Tensor:
        """Where tokens start .. stop - 1 are in the store, (stop - start,) int64 on the CPU."""
        return self._slots[start:stop]

    def reserve(self, length: int) -> None:
        """Room for ``length`` tokens that is this session's alone to write on, after the ones that are written."""
        size = self.store.size
        first = self.length // size
        if first < len(self.pages) and self.store.shared(self.pages[first]):
            self.pages[first] = self.store.own(self.pages[first])
            self._map(first)
        while len(self.pages) * size < length:
            self.pages.append(self.store.take())
        mapped = len(self._slots) // size  # fewer than there are pages also where the store was full half-way, before
        if len(self.pages) > mapped:
            self._map(mapped)

    def advance(self, tokens: int) -> None:
        """Count tokens that a pass has written: the pass is through."""
        self.length += tokens

    def truncate(self, length: int) -> None:
        """Forget everything after the first ``length`` tokens, and give back the pages that held only that."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate a table of {self.length} tokens to {length}")
        self.length = length
        kept = -(-length // self.store.size)
        for page in self.pages[kept:]:
            self.store.release(page)
        del self.pages[kept:]
        self._slots = self._slots[: kept * self.store.size]

    def publish(self, keys: Sequence[bytes]) -> None:
        """Let others adopt the full pages; keys: one for each page from the first on (more than there are: ignored)."""
        for key, page in zip(keys, self.pages[: self.length // self.store.size], strict=False):
            self.store.know(key, page)

    def adopt(self, keys: Sequence[bytes]) -> int:
        """Take over known pages from the first on; only of an empty table. Returns the tokens that it now has."""
        if self.pages:
            raise ValueError("only an empty table can adopt pages")
        for key in keys:
            page = self.store.find(key)
            if page is None:
                break
            self.pages.append(self.store.keep(page))
        self.length = len(self.pages) * self.store.size
        self._map(0)
        return self.length

    def free(self) -> None:
        """Give everything back. Doing it twice is harmless."""
        self.truncate(0)

    def _map(self, first: int) -> None:
        """Write down the slots of the pages from number ``first`` on."""
        size = self.store.size
        fresh = torch.tensor(self.pages[first:], dtype=torch.long)[:, None] * size + torch.arange(size)
        self._slots = torch.cat((self._slots[: first * size], fresh.flatten()))


class PagedBatch:
    """One forward over the ends of several tables: what `Decoder.forward` takes as its cache.

    Every row brings ``new`` tokens (several only when it is alone). Pasts of unequal length are padded on the left,
    with the padding page, so that every row's new tokens stand at the end; ``mask`` (B, S) marks what is real.
    Tables grow with ``advance``, when the pass is through; a pass that fails leaves them as they were.
    """

    def __init__(self, tables: Sequence[PageTable], new: int = 1):
        if len(tables) > 1 and new > 1:
            raise ValueError(
                f"{len(tables)} tables with {new} new tokens each; several tables take one token at a time"
            )
        for table in tables:
            table.reserve(table.length + new)
        self.tables, self.new, self.store = tables, new, tables[0].store
        ends = [table.length + new for table in tables]
        self.longest = max(ends)
        device = self.store.layers[0].device
        self.mask: Tensor | None = None
        if len(tables) == 1:
            read = tables[0].slots(0, ends[0])
        else:
            read = torch.zeros(len(tables), self.longest, dtype=torch.long)
            for row, table, end in zip(read, tables, ends, strict=True):
                row[self.longest - end :] = table.slots(0, end)
            if min(ends) < self.longest:
                starts = self.longest - torch.tensor(ends)
                self.mask = (torch.arange(self.longest) >= starts[:, None]).to(device)
        self._read = as_slice(read) or read.flatten().to(device)
        write = [table.slots(table.length, end) for table, end in zip(tables, ends, strict=True)]
        self._write = torch.cat(write).to(device)

    @property
    def length(self) -> int:
        """Tokens before the new ones, padding included."""
        return self.longest - self.new

    def append(self, layer: int, new: Tensor) -> tuple[Tensor, Tensor]:
        """Write keys and values (B, T, 2, H, D) of ``layer``; returns all of the batch, (B, H, S, D) each."""
        store = self.store.layers[layer]
        store.index_copy_(0, self._write, new.flatten(0, 1).to(store.dtype))
        seen = store[self._read] if isinstance(self._read, slice) else store.index_select(0, self._read)
        return keys_values(seen.view(len(self.tables), self.longest, *seen.shape[1:]))

    def advance(self) -> None:
        """Count the new tokens in every table: the pass is through."""
        for table in self.tables:
            table.advance(self.new)


def as_slice(slots: Tensor) -> slice | None:
    """The slots of one table as a view of the store, where its pages are neighbours: nothing is copied then."""
    if slots.ndim > 1 or not bool((slots.diff() == 1).all()):
        return None
    start = int(slots[0])
    return slice(start, start + len(slots))
