"""A JSON object that is read key by key, and complains about whatever is missing, impossible or left over."""

from __future__ import annotations

import difflib
import json
import logging
import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from descant.errors import ConfigError
from descant.files import Fault, read_file

log = logging.getLogger(__name__)
NEAR_SHARE = 0.8  # of a key's letters that another shares, to be a typing error of it
# names of keys that change what a model computes: quantisation, rotary positions, activations, sizes
COMPUTING = re.compile(
    r"quant|rope|rotary|(?:^|_)act(?:ivation)?(?:_|$)|(?:^|_)(?:size|dim|depth|width)$|layers$|heads$"
)
# Ceilings of what a config may say, before anything is built of it; the largest of the family has 36 layers, and sizes
# of 152,064 (vocabulary) and 12,845,056 (pixels).
MAX_SIZE = 2**24
MAX_LAYERS = 1024
LARGEST_NUMBER = 1e15
MAX_JSON_BYTES = 64 * 2**20  # the largest official file, the 7B index, is under 0.3 MB


def read_json(path: Path) -> dict[str, object]:
    """The JSON object in ``path``. Raises ConfigError when it is missing, too large, not JSON or not an object."""
    data: object
    try:
        data = json.loads(read_file(path, MAX_JSON_BYTES, refused_config).decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON ({error}). Fetch the file again.") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds {_show(data)}; expected a JSON object {{...}}.")
    return data


def refused_config(_: Fault, why: str) -> ConfigError:
    """The error for a file of a model folder that cannot be read."""
    return ConfigError(why)


def _show(value: object) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."


class ConfigTable:
    """One JSON object on the way into dataclasses.

    Every reader marks its key as known. ``close`` judges those that nobody knew. A key with JSON null counts as
    absent, because the official files write null for "not set". ``aliases`` are other official names of the same
    value; where several are present they must agree.
    """

    def __init__(self, data: Mapping[str, object], file: str, path: str = ""):
        self.data = data
        self.file = file
        self.path = path
        self.known: set[str] = set()  # keys that were read
        self.inert: set[str] = set()  # keys that are known by name and change nothing

    def key(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def error(self, name: str, problem: str, todo: str = "") -> ConfigError:
        """The error to raise for ``name``: file, full dotted key, what is wrong, what to do."""
        todo = todo or f"Correct {self.file}, or take the one that belongs to this checkpoint."
        return ConfigError(f"{self.file}: {self.key(name)} {problem}. {todo}")

    def has(self, name: str) -> bool:
        return self.data.get(name) is not None

    def _find(self, name: str, aliases: tuple[str, ...], expected: str) -> tuple[str, object] | None:
        names = [n for n in (name, *aliases) if self.has(n)]
        self.known.update((name, *aliases))
        for other in names[1:]:
            if self.data[other] != self.data[names[0]]:
                raise self.error(
                    names[0],
                    f"is {_show(self.data[names[0]])} but {self.key(other)}, another name of the same value, "
                    f"is {_show(self.data[other])}; expected {expected}, once",
                )
        return (names[0], self.data[names[0]]) if names else None

    def _need(self, name: str, expected: str) -> ConfigError:
        return self.error(name, f"is missing; expected {expected}")

    # -- leaves ----------------------------------------------------------------------------------------------------

    def integer(
        self,
        name: str,
        default: int | None = None,
        minimum: int = 1,
        aliases: tuple[str, ...] = (),
        maximum: int = MAX_SIZE,
    ) -> int:
        expected = f"an integer from {minimum:,} to {maximum:,}"
        found = self._find(name, aliases, expected)
        if found is None:
            if default is None:
                raise self._need(name, expected)
            return default
        value = found[1]
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
            raise self.error(found[0], f"is {_show(value)}; expected {expected}")
        return value

    def number(self, name: str, default: float | None = None, low: float = 0.0, high: float = math.inf) -> float:
        expected = f"a number >= {low:g}" if high == math.inf else f"a number from {low:g} to {high:g}"
        found = self._find(name, (), expected)
        if found is None:
            if default is None:
                raise self._need(name, expected)
            return default
        value = found[1]
        high = min(high, LARGEST_NUMBER)
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise self.error(name, f"is {_show(value)}; expected {expected}")
        return float(value)

    def flag(self, name: str, default: bool | None = None) -> bool:
        found = self._find(name, (), "true or false")
        if found is None:
            if default is None:
                raise self._need(name, "true or false")
            return default
        if not isinstance(found[1], bool):
            raise self.error(name, f"is {_show(found[1])}; expected true or false")
        return found[1]

    def text(self, name: str, default: str | None) -> str | None:
        """A string. Here null means null: a key that is present wins over the default."""
        self.known.add(name)
        value = self.data.get(name, default)
        if value is not None and not isinstance(value, str):
            raise self.error(name, f"is {_show(value)}; expected a string or null")
        return value

    def integers(
        self, name: str, default: tuple[int, ...] | None = None, minimum: int = 1, scalar: bool = False
    ) -> tuple[int, ...]:
        """A list of integers; with ``scalar`` also one bare integer (token ids are written both ways)."""
        expected = f"a list of at most {MAX_LAYERS:,} integers from {minimum:,} to {MAX_SIZE:,}"
        found = self._find(name, (), expected)
        if found is None:
            if default is None:
                raise self._need(name, expected)
            return default
        value = [found[1]] if scalar and isinstance(found[1], int) else found[1]
        if (
            not isinstance(value, list)
            or len(value) > MAX_LAYERS
            or not all(isinstance(v, int) and not isinstance(v, bool) and minimum <= v <= MAX_SIZE for v in value)
        ):
            raise self.error(name, f"is {_show(found[1])}; expected {expected}")
        return tuple(value)

    def numbers(self, name: str, default: tuple[float, ...], length: int) -> tuple[float, ...]:
        expected = f"a list of {length} numbers"
        found = self._find(name, (), expected)
        if found is None:
            return default
        value = found[1]
        if not isinstance(value, list) or len(value) != length:
            raise self.error(name, f"is {_show(value)}; expected {expected}")
        if not all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in value):
            raise self.error(name, f"is {_show(value)}; expected {expected}")
        return tuple(float(v) for v in value)

    # -- structure -------------------------------------------------------------------------------------------------

    def table(self, name: str) -> ConfigTable:
        self.known.add(name)
        if not self.has(name):
            raise self._need(name, "an object {...}")
        value = self.data[name]
        if not isinstance(value, dict):
            raise self.error(name, f"is {_show(value)}; expected an object {{...}}")
        return ConfigTable(value, self.file, self.key(name))

    def maybe_table(self, name: str) -> ConfigTable | None:
        self.known.add(name)
        return self.table(name) if self.has(name) else None

    def expect(self, name: str, *allowed: object) -> None:
        """The key may be absent; where present it must be one of ``allowed``, the only values descant implements."""
        self.known.add(name)
        if not self.has(name):
            return
        value = self.data[name]
        if not any(value == a and isinstance(value, bool) == isinstance(a, bool) for a in allowed):
            options = " or ".join(_show(a) for a in allowed)
            raise self.error(name, f"is {_show(value)}; expected {options}, the only form that is implemented")

    def ignore(self, *names: str) -> None:
        """Keys known by name that change nothing here."""
        self.inert.update(names)

    def close(self, *, ours: bool = False) -> None:
        """Judge the keys that no reader asked for.

        A key that looks like one that is read, or that would change what the model computes, is a ConfigError; any
        other is a warning that names it, once: other versions of transformers, and people's trainers, write keys of
        their own. ours: the object is in our own layout, where every unknown key is an error.
        """
        for name, value in self.data.items():
            if name in self.known | self.inert or (value is None and not ours):
                continue
            near = difflib.get_close_matches(name, sorted(self.known), 1, NEAR_SHARE if not ours else 0.6)
            if not (ours or near or COMPUTING.search(self.key(name))):
                warn_once(f"{self.file}: unknown key {self.key(name)} (value {_show(value)}) is ignored")
                continue
            hint = f"Did you mean {self.key(near[0])}? " if near else ""
            raise ConfigError(
                f"{self.file}: unknown key {self.key(name)} (value {_show(value)}). {hint}"
                "Expected only known keys here, because one that is skipped could change what the model computes. "
                "Remove it, or take the file that belongs to this checkpoint."
            )


@cache
def warn_once(text: str) -> None:
    """Log a warning, the first time that it is given."""
    log.warning(text)
