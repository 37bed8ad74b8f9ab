"""A paged key/value cache: one store a decoder, shared by all sessions; a past that is the same is kept once.

Pages of a fixed number of tokens are lent to tables, one table a session, and counted: a page goes back when nobody
refers to it. Every full page can be known by a key (what its tokens are, and all that came before them), so that a
session that begins alike adopts the pages of another (Kwon et al., 2023, arXiv 2309.06180).
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from descant.errors import BusyError
from descant.nn.attention import causal_mask, grouped_attention, packed_kernel
from descant.nn.cache import Cache, keys_values
from descant.nn.kernels import Operation, numbers

PADDING_PAGE = 0  # the page that nobody owns: zeros, read where a shorter session of a batch has no past


class PageStore:
    """The store: per layer keys and values (slots, 2, H, D), a slot being one token of one page.

    limit: pages that may be in use at once, the padding page not counted. The tensors grow by doubling up to it; if
    whole (None: on a GPU, whose graphs keep addresses) they have its size from the start.
    """

    def __init__(
        self, layers: int, heads: int, dim: int, *, size: int, limit: int, like: Tensor, whole: bool | None = None
    ):
        self.size, self.limit = size, limit
        pages = limit + 1 if (like.is_cuda if whole is None else whole) else 2
        self.layers = [like.new_zeros(pages * size, 2, heads, dim) for _ in range(layers)]
        self._counts = [1] + [0] * (pages - 1)  # references to each page
        self._free = list(range(1, pages))  # a heap: neighbours are lent together, and a lone past is one slice
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
    """One new token of each of several tables: a decode step's cache. Rows of unequal past are padded on the left, with
    the padding page, so that all new tokens stand at the end.

    Tables count the new tokens by ``advance``, when the pass is through; a pass that fails leaves them as they were.
    """

    def __init__(self, tables: Sequence[PageTable]):
        for table in tables:
            table.reserve(table.length + 1)
        self.tables, self.store = tables, tables[0].store
        ends = [table.length + 1 for table in tables]
        self.longest = max(ends)
        device = self.store.layers[0].device
        self._mask: Tensor | None = None  # (B, 1, 1, S): what is no padding
        if len(tables) == 1:
            read = tables[0].slots(0, self.longest)
        else:
            read = torch.zeros(len(tables), self.longest, dtype=torch.long)
            for row, table, end in zip(read, tables, ends, strict=True):
                row[self.longest - end :] = table.slots(0, end)
            if min(ends) < self.longest:
                starts = self.longest - torch.tensor(ends)
                self._mask = (torch.arange(self.longest) >= starts[:, None])[:, None, None].to(device)
        self._read = as_slice(read) or read.flatten().to(device)
        self._write = torch.cat([table.slots(table.length, table.length + 1) for table in tables]).to(device)

    def attend(self, layer: int, q: Tensor, new: Tensor) -> Tensor:
        """q (B, 1, Hq, D), keys and values (B, 1, 2, Hk, D) of ``layer`` -> (B, 1, Hq * D); see ``Cache``."""
        store = write_tokens(self.store, layer, self._write, new)
        seen = store[self._read] if isinstance(self._read, slice) else store.index_select(0, self._read)
        keys, values = keys_values(seen.view(len(self.tables), self.longest, *seen.shape[1:]))
        return grouped_attention(q.transpose(1, 2), keys, values, self._mask, causal=False)

    def advance(self) -> None:
        """Count the new tokens in every table: the pass is through."""
        for table in self.tables:
            table.advance(1)


class PackedBatch:
    """Several new tokens of each of several tables, one table's after another's in one row, without padding: the cache
    of a pass that reads prompts. Tables count the new tokens by ``advance``, as those of ``PagedBatch`` do."""

    def __init__(self, tables: Sequence[PageTable], counts: Sequence[int]):
        for table, count in zip(tables, counts, strict=True):
            table.reserve(table.length + count)
        self.tables, self.counts, self.store = tables, counts, tables[0].store
        kept = self.store.layers[0]
        ends = [table.length + count for table, count in zip(tables, counts, strict=True)]
        reads = [table.slots(0, end) for table, end in zip(tables, ends, strict=True)]
        write = [table.slots(table.length, end) for table, end in zip(tables, ends, strict=True)]
        self._write = torch.cat(write).to(kept.device)
        self._kernel = packed_kernel(kept.device, kept.dtype, kept.shape[-1]) if len(tables) > 1 else None
        if self._kernel is None:
            self._reads = [as_slice(read) or read.to(kept.device) for read in reads]
            self._masks = [
                causal_mask(count, end - count, None, kept.device) for count, end in zip(counts, ends, strict=True)
            ]
        else:
            self._read = torch.cat(reads).to(kept.device)
            edges = [[0, *accumulate(lengths)] for lengths in (counts, ends)]
            self._borders = torch.tensor(edges, dtype=torch.int32).to(kept.device).unbind()
            self._longest = max(counts), max(ends)

    def attend(self, layer: int, q: Tensor, new: Tensor) -> Tensor:
        """q (1, T, Hq, D), keys and values (1, T, 2, Hk, D) of ``layer`` -> (1, T, Hq * D); see ``Cache``."""
        store = write_tokens(self.store, layer, self._write, new)
        if self._kernel is not None:
            keys, values = store.index_select(0, self._read).unbind(1)
            return self._kernel(q[0], keys, values, *self._borders, *self._longest).flatten(1)[None]
        outs = []
        for one, read, mask in zip(torch.split(q, list(self.counts), dim=1), self._reads, self._masks, strict=True):
            keys, values = keys_values((store[read] if isinstance(read, slice) else store.index_select(0, read))[None])
            causal = mask is None and one.shape[1] > 1
            outs.append(grouped_attention(one.transpose(1, 2), keys, values, mask, causal=causal))
        return outs[0] if len(outs) == 1 else torch.cat(outs, dim=1)

    def advance(self) -> None:
        """Count the new tokens in every table: the pass is through."""
        for table, count in zip(self.tables, self.counts, strict=True):
            table.advance(count)


@dataclass(frozen=True)
class StaticCache:
    """The cache of a static step: every row reads the slots of its pages, then, last, the one that it writes.

    layers: the store's, (slots, 2, H, D) each; read (B * S,), write (B,) int64; mask (B, 1, 1, S): what is written.
    """

    layers: Sequence[Tensor]
    read: Tensor
    write: Tensor
    mask: Tensor

    @classmethod
    def of(cls, layers: Sequence[Tensor], pages: Tensor, lengths: Tensor, size: int) -> StaticCache:
        """See ``attend_pages``. What is not written is read from the padding page: a page that was somebody else's may
        hold anything, and nothing times what is no number is no number."""
        at = torch.arange(len(pages) * size, device=pages.device)
        slots = (pages.t().unsqueeze(-1) * size + at[:size]).flatten(1)  # (B, P * size)
        lengths = lengths.unsqueeze(1)
        past, write = at[:-1] < lengths, slots.gather(1, lengths)
        read = torch.cat((slots[:, :-1] * past, write), dim=1)
        mask = torch.cat((past, torch.ones_like(write, dtype=torch.bool)), dim=1)
        return cls(layers, read.flatten(), write.flatten(), mask[:, None, None])

    def attend(self, layer: int, q: Tensor, new: Tensor) -> Tensor:
        """q (B, 1, Hq, D), keys and values (B, 1, 2, Hk, D) -> (B, 1, Hq * D); see ``Cache``."""
        store = self.layers[layer]
        store.index_copy_(0, self.write, new.flatten(0, 1).to(store.dtype))
        seen = store.index_select(0, self.read)
        keys, values = keys_values(seen.view(len(self.write), -1, *seen.shape[1:]))
        return grouped_attention(q.transpose(1, 2), keys, values, self.mask, causal=False)


@dataclass(frozen=True)
class PagesCache:
    """The cache of a static step that reads pages where they lie; see ``attend_pages``."""

    layers: Sequence[Tensor]
    pages: Tensor
    lengths: Tensor
    size: int

    def attend(self, layer: int, q: Tensor, new: Tensor) -> Tensor:
        """q (B, 1, Hq, D), keys and values (B, 1, 2, Hk, D) -> (B, 1, Hq * D); see ``Cache``."""
        out: Tensor = attend_pages(q[:, 0], new[:, 0], self.layers[layer], self.pages, self.lengths, self.size)
        return out[:, None]


def static_cache(layers: Sequence[Tensor], pages: Tensor, lengths: Tensor, size: int) -> Cache:
    """The cache of a step of fixed shapes; see ``attend_pages``."""
    if attend_pages.fits(layers[0]):
        return PagesCache(layers, pages, lengths, size)
    return StaticCache.of(layers, pages, lengths, size)


def attend_gathered(q: Tensor, new: Tensor, store: Tensor, pages: Tensor, lengths: Tensor, size: int) -> Tensor:
    """See ``attend_pages``."""
    return StaticCache.of([store], pages, lengths, size).attend(0, q[:, None], new[:, None])[:, 0]


def pages_example(device: torch.device, dtype: torch.dtype) -> tuple[Any, ...]:
    """Three rows whose pages of four tokens lie anywhere."""
    pages = torch.tensor([[7, 3, 9], [0, 5, 1], [0, 0, 8], [0, 0, 2], [0, 0, 6]], device=device)
    lengths = torch.tensor([0, 7, 17], device=device)
    q, new, store = ((3, 6, 16), (3, 2, 2, 16), (40, 2, 2, 16))
    made = (numbers(shape, device, dtype, seed) for seed, shape in enumerate((q, new, store)))
    return *made, pages, lengths, 4


# Attention of one new token of each of several rows to the row's past, whose pages are read where they lie, and to
# itself; it is written first. q (B, Hq, D), new (B, 2, Hk, D): its key and value; store (slots, 2, Hk, D); pages (P, B)
# int64: those of each row in order, behind them any; lengths (B,) int64: tokens of each row before; size: tokens of a
# page -> (B, Hq * D). By shares of the past and a mean of them ("flash decoding", Dao et al., 2023).
attend_pages = Operation(
    "attend_pages(Tensor q, Tensor new, Tensor(a!) store, Tensor pages, Tensor lengths, int size) -> Tensor",
    attend_gathered,
    lambda q, *_: q.new_empty(q.shape[0], q.shape[1] * q.shape[2]),
    pages_example,
)


def write_tokens(store: PageStore, layer: int, slots: Tensor, new: Tensor) -> Tensor:
    """Write keys and values (B, T, 2, H, D) of ``layer`` at slots (B * T,); returns the layer, (slots, 2, H, D)."""
    kept = store.layers[layer]
    kept.index_copy_(0, slots, new.flatten(0, 1).to(kept.dtype))
    return kept


def as_slice(slots: Tensor) -> slice | None:
    """The slots of one table as a view of the store, where its pages are neighbours: nothing is copied then."""
    if slots.ndim > 1 or not bool((slots.diff() == 1).all()):
        return None
    start = int(slots[0])
    return slice(start, start + len(slots))
