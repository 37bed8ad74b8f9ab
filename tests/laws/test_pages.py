"""Paged == private: whatever sessions join, leave, fork, roll back or share, each reads only its own past."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from descant.config import DecoderConfig
from descant.errors import BusyError
from descant.model.decoder import Decoder
from descant.nn.pages import PackedBatch, PagedBatch, PageStore, PageTable
from tests.decoding import sequential_positions

CFG = DecoderConfig(40, 16, 16, 24, 2, 4, 2, 8, (1, 1, 2), rope_theta=1e4)
SCHEDULES = 60


@pytest.fixture(scope="module")
def body() -> Decoder:
    torch.manual_seed(0)
    return Decoder(CFG).eval()


def store(size: int = 4, limit: int = 400) -> PageStore:
    return PageStore(
        CFG.num_hidden_layers, CFG.num_key_value_heads, CFG.head_dim, size=size, limit=limit, like=torch.ones(1)
    )


def rows(length: int, rng: random.Random) -> Tensor:
    return torch.randn(length, CFG.hidden_size, generator=torch.Generator().manual_seed(rng.randrange(2**31)))


def whole(body: Decoder, x: Tensor) -> Tensor:
    out: Tensor = body(x[None], sequential_positions(1, 0, len(x)))[0]
    return out


class Reader:
    """A session: all the rows it was ever given, its table, and the last output row."""

    def __init__(self, table: PageTable, past: Tensor):
        self.table, self.past = table, past

    def check(self, body: Decoder, hidden: Tensor) -> None:
        torch.testing.assert_close(hidden, whole(body, self.past)[-len(hidden) :], rtol=1e-4, atol=1e-5)


def fork(table: PageTable) -> PageTable:
    """Another session with the same past; pages are copied when one of the two writes on them."""
    twin, store = PageTable(table.store), table.store
    kept = -(-table.length // store.size)
    twin.pages = [store.keep(page) for page in table.pages[:kept]]
    twin.length, twin._slots = table.length, table._slots[: kept * store.size]
    return twin


def feed(body: Decoder, reader: Reader, x: Tensor) -> None:
    batch = PackedBatch([reader.table], [len(x)])
    at = sequential_positions(1, reader.table.length, len(x))
    hidden = body(x[None], at, batch)
    batch.advance()
    reader.past = torch.cat((reader.past, x))
    reader.check(body, hidden[0])


def step(body: Decoder, readers: list[Reader], rng: random.Random) -> None:
    x = torch.stack([rows(1, rng) for _ in readers])
    at = torch.tensor([reader.table.length for reader in readers]).expand(3, -1)[..., None]
    batch = PagedBatch([reader.table for reader in readers])
    hidden = body(x, at, batch)
    batch.advance()
    for reader, fresh, out in zip(readers, x, hidden, strict=True):
        reader.past = torch.cat((reader.past, fresh))
        reader.check(body, out)


@pytest.mark.parametrize("seed", range(SCHEDULES))
@torch.no_grad()
def test_any_schedule_reads_as_if_alone(body: Decoder, seed: int) -> None:
    rng = random.Random(seed)
    pages = store(size=rng.choice([1, 3, 4, 16]))
    readers: list[Reader] = []
    for _ in range(25):
        act = rng.choice(["join", "step", "step", "step", "feed", "fork", "cut", "leave"])
        if act == "join" or not readers:
            readers.append(Reader(PageTable(pages), torch.empty(0, CFG.hidden_size)))
            feed(body, readers[-1], rows(rng.randrange(1, 12), rng))
        elif act == "step":
            step(body, rng.sample(readers, rng.randrange(1, len(readers) + 1)), rng)
        elif act == "feed":
            feed(body, rng.choice(readers), rows(rng.randrange(1, 9), rng))
        elif act == "fork":
            model = rng.choice(readers)
            readers.append(Reader(fork(model.table), model.past.clone()))
        elif act == "cut":
            reader = rng.choice(readers)
            length = rng.randrange(1, reader.table.length + 1)
            reader.table.truncate(length)
            reader.past = reader.past[:length]
        else:
            readers.pop(rng.randrange(len(readers))).table.free()
        pages.check([reader.table for reader in readers])
    for reader in readers:
        reader.table.free()
    assert pages.used == 0


@pytest.mark.parametrize("size", [2, 5])
@torch.no_grad()
def test_an_adopted_past_is_the_past(body: Decoder, size: int) -> None:
    rng, pages = random.Random(size), store(size)
    common = rows(11, rng)
    keys = [bytes([i]) for i in range(11 // size)]
    first = Reader(PageTable(pages), torch.empty(0, CFG.hidden_size))
    feed(body, first, common)
    first.table.publish(keys)
    first.table.free()  # what it leaves is remembered
    assert pages.used == 0
    assert pages.remembered == len(keys)
    second = Reader(PageTable(pages), common)
    had = second.table.adopt(keys)
    assert had == len(keys) * size
    second.past = common[:had]
    feed(body, second, rows(7, rng))
    second.table.truncate(had - 1)  # writing where a known page is would change what others adopt
    second.past = second.past[: had - 1]
    feed(body, second, rows(3, rng))
    third = Reader(PageTable(pages), common)
    third.table.adopt([*keys, b"unknown"])
    third.past = common[:had]
    feed(body, third, rows(2, rng))
    pages.check([second.table, third.table])


@torch.no_grad()
def test_a_poisoned_session_poisons_nobody(body: Decoder) -> None:
    rng, pages = random.Random(0), store()
    sick, well = (Reader(PageTable(pages), torch.empty(0, CFG.hidden_size)) for _ in range(2))
    feed(body, well, rows(2, rng))
    batch = PackedBatch([sick.table], [9])
    body(torch.full((1, 9, CFG.hidden_size), float("nan")), sequential_positions(1, 0, 9), batch)
    batch.advance()
    x = torch.stack([rows(1, rng), rows(1, rng)])
    both = PagedBatch([sick.table, well.table])
    hidden = body(x, torch.tensor([9, 2]).expand(3, -1)[..., None], both)
    both.advance()
    well.past = torch.cat((well.past, x[1]))
    well.check(body, hidden[1])
    sick.table.free()
    heir = Reader(PageTable(pages), torch.empty(0, CFG.hidden_size))
    feed(body, heir, rows(3, rng))  # on pages that were poisoned
    step(body, [heir, well], rng)


def test_a_full_store_says_so_and_stays_whole() -> None:
    pages = store(size=2, limit=3)
    table, other = PageTable(pages), PageTable(pages)
    table.reserve(4)
    with pytest.raises(BusyError, match="all 3 pages"):
        other.reserve(4)
    assert pages.used == 3
    other.free()
    pages.check([table])
    other.reserve(2)


def test_a_page_is_not_released_twice() -> None:
    pages = store()
    page = pages.take()
    pages.release(page)
    with pytest.raises(RuntimeError, match="more often"):
        pages.release(page)


def test_a_failed_forward_leaves_the_tables_as_they_were(body: Decoder) -> None:
    pages = store()
    table = PageTable(pages)
    batch = PackedBatch([table], [2])
    for layer in range(2):
        batch.attend(layer, torch.ones(1, 2, 4, 8), torch.ones(1, 2, 2, 2, 8))  # what comes after the last layer fails
    assert table.length == 0
    batch.advance()
    assert table.length == 2


def test_a_page_of_a_full_store_is_written_on_without_a_copy_when_only_its_key_shares_it(body: Decoder) -> None:
    """Whoever was promised the last page can use it, also after going back into what it had published."""
    rng = random.Random(0)
    pages = store(size=4, limit=2)
    reader = Reader(PageTable(pages), torch.empty(0, CFG.hidden_size))
    feed(body, reader, rows(8, rng))
    reader.table.publish([b"first", b"second"])
    reader.table.truncate(6)
    reader.past = reader.past[:6]
    feed(body, reader, rows(2, rng))
    assert pages.find(b"first") is not None and pages.find(b"second") is None
    pages.check([reader.table])


def test_a_page_that_another_table_shares_is_never_written_on_in_a_full_store(body: Decoder) -> None:
    rng = random.Random(0)
    pages = store(size=4, limit=1)
    reader = Reader(PageTable(pages), torch.empty(0, CFG.hidden_size))
    feed(body, reader, rows(3, rng))
    twin = fork(reader.table)
    with pytest.raises(BusyError):
        feed(body, Reader(twin, reader.past), rows(1, rng))
    reader.table.publish([])
    twin.free()
    feed(body, reader, rows(1, rng))
    pages.check([reader.table])


def test_a_table_that_found_the_store_full_goes_on_when_there_is_room(body: Decoder) -> None:
    rng = random.Random(0)
    pages = store(size=4, limit=4)
    other, reader = PageTable(pages), Reader(PageTable(pages), torch.empty(0, CFG.hidden_size))
    other.reserve(4)
    feed(body, reader, rows(4, rng))
    with pytest.raises(BusyError):
        feed(body, reader, rows(13, rng))
    other.free()
    feed(body, reader, rows(12, rng))
    pages.check([reader.table])
