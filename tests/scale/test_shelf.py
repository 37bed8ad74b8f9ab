"""Laws of the shared store: nothing outlives its time or its budget, and a chain is whole or gone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from descant.scale.shelf import Key, Shelf


def key(n: int, tenant: str = "a") -> Key:
    return "response", tenant, str(n)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40), st.none() | st.integers(0, 9)), max_size=30))
def test_a_chain_is_whole_or_gone_and_the_budget_holds(kept: list[tuple[int, int, int | None]]) -> None:
    shelf = Shelf(most=6, most_bytes=100)
    said: dict[int, list[int]] = {}
    for place, (size, before) in enumerate((size, before) for _, size, before in kept):
        earlier = None if before is None or before >= place else before
        shelf.keep(key(place), place, size, 60, None if earlier is None else key(earlier))
        said[place] = [*said.get(earlier, []), place] if earlier is not None else [place]
        sizes = [size for _, size, _ in kept]
        there = [n for n in said if shelf.get(key(n)) is not None]
        assert len(there) <= 6
        assert shelf.bytes == sum(sizes[n] for n in there) <= 100
        for n, whole in said.items():
            assert shelf.get_chain(key(n)) in ([], whole)
        if sum(sizes[n] for n in said[place]) <= 100 and len(said[place]) <= 6 and all(n in there for n in said[place]):
            assert shelf.get_chain(key(place)) == said[place]


def test_what_others_go_on_from_lives_as_long_as_they(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("descant.scale.shelf.time.monotonic", lambda: now)
    shelf = Shelf()
    shelf.keep(key(0), "first", 1, 10)
    now = 8.0
    shelf.keep(key(1), "second", 1, 10, key(0))
    now = 17.0
    assert shelf.get_chain(key(1)) == ["first", "second"]
    now = 18.5
    assert shelf.get_chain(key(1)) == [] and shelf.get(key(0)) is None


def test_what_is_deleted_is_gone_for_those_who_name_it_and_stays_for_those_who_go_on() -> None:
    shelf = Shelf()
    shelf.keep(key(0), "first", 1, 10)
    shelf.keep(key(1), "second", 1, 10, key(0))
    assert shelf.hide(key(0)) and not shelf.hide(key(0))
    assert shelf.get(key(0)) is None and shelf.get_chain(key(0)) == []
    assert shelf.get_chain(key(1)) == ["first", "second"]


def test_a_ticket_is_taken_once_and_a_tenants_things_are_its_own() -> None:
    shelf = Shelf()
    shelf.keep(key(0), "mine", 1, 10)
    assert shelf.get(key(0, "b")) is None and shelf.take(key(0, "b")) is None
    assert shelf.take(key(0)) == "mine"
    assert shelf.take(key(0)) is None and shelf.bytes == 0
    shelf.keep(key(1), "late", 1, -1)
    assert shelf.take(key(1)) is None and shelf.bytes == 0
