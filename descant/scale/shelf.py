"""The store of what follow-ups may name, apart from the replicas. ``Shelf`` runs as one actor of a Ray cluster."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

MOST_THINGS = 100_000
MOST_BYTES = 1 << 30
Key = tuple[str, str, str]  # (kind, tenant, name)


@dataclass
class Thing:
    """One kept thing. until: ``time.monotonic``; before: the key of what it goes on from, which lives as long as it;
    is_named: False once it was deleted, and is kept for those that go on from it."""

    value: object
    size: int
    until: float
    before: Key | None = None
    is_named: bool = True


class Shelf:
    """Things by key, for so many seconds each; the oldest go first when there are too many, or too many bytes."""

    def __init__(self, most: int = MOST_THINGS, most_bytes: int = MOST_BYTES):
        self.most, self.most_bytes = most, most_bytes
        self.bytes = 0
        self._things: OrderedDict[Key, Thing] = OrderedDict()

    def keep(self, key: Key, value: object, size: int, seconds: float, before: Key | None = None) -> None:
        """Keep a thing; a key that is known gets it in place of its own."""
        self._drop(key)
        until = time.monotonic() + seconds
        for earlier in list(self._chain(before)):
            self._things[earlier].until = max(until, self._things[earlier].until)
            self._things.move_to_end(earlier)
        self._things[key] = Thing(value, size, until, before)
        self.bytes += size
        while self._things and (len(self._things) > self.most or self.bytes > self.most_bytes):
            self._drop(next(iter(self._things)))

    def get(self, key: Key) -> object | None:
        """A thing, or None where there is none."""
        thing = self._things.get(key)
        return thing.value if thing is not None and thing.is_named and thing.until > time.monotonic() else None

    def take(self, key: Key) -> object | None:
        """A thing, which nobody gets a second time."""
        value = self.get(key)
        self._drop(key)
        return value

    def get_chain(self, key: Key) -> list[object]:
        """A thing and all before it, the first one first; empty where one of them is gone."""
        keys = list(self._chain(key))
        if self.get(key) is None or self._things[keys[-1]].before is not None:
            return []
        return [self._things[each].value for each in reversed(keys)]

    def hide(self, key: Key) -> bool:
        """Let nobody get a thing any more but those that go on from it. Returns False where there is none."""
        if self.get(key) is None:
            return False
        self._things[key].is_named = False
        return True

    def _chain(self, key: Key | None) -> Iterator[Key]:
        """The keys from one backwards, as far as they are there."""
        while key is not None and key in self._things:
            yield key
            key = self._things[key].before

    def _drop(self, key: Key) -> None:
        thing = self._things.pop(key, None)
        self.bytes -= 0 if thing is None else thing.size
