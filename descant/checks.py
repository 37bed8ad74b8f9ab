"""Checks of plain values: what was given, and what to write instead."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from numbers import Integral, Real
from typing import Any, ClassVar

from descant.errors import OptionError, shortened

# Kinds of plain values: what Python calls them, and what an error calls them.
PLAIN_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "str": (str, "a string"),
    "bool": (bool, "True or False"),
    "int": (Integral, "a whole number"),
    "float": (Real, "a number"),
}


def check_plain(name: str, value: object, annotation: str) -> None:
    """Refuse ``value`` unless it is of the plain kind that ``annotation`` names ("int", "str | None", ...).

    OptionError says the name, what was given and what to write. Other annotations are not checked here.
    """
    kind = annotation.removesuffix(" | None")
    if kind not in PLAIN_KINDS or (value is None and kind != annotation):
        return
    kinds, described = PLAIN_KINDS[kind]
    if not isinstance(value, kinds) or (isinstance(value, bool) and kind != "bool"):
        optional = " or None" if kind != annotation else ""
        raise OptionError(f"{name}={shortened(value)} is {type(value).__name__}; write {described}{optional}")


def check_type(name: str, value: object, kinds: type | tuple[type, ...]) -> None:
    """Refuse ``value`` unless it is one of ``kinds``: OptionError says what was given and what to write."""
    if not isinstance(value, kinds):
        names = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
        raise OptionError(f"{name}={shortened(value)} is {type(value).__name__}; write a {names}")


def is_finite_number(value: object) -> bool:
    """True for a real number that a float can hold, and not for True, NaN or infinity."""
    try:
        return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)
    except OverflowError:
        return False


class CheckedOptions:
    """Base of dataclasses of options: a field of a wrong type or beyond its bounds is an OptionError where it is made.

    BOUNDS: the least and the most of a number (never NaN); CHOICES: the words that a string may be.
    """

    BOUNDS: ClassVar[Mapping[str, tuple[float, float]]] = {}
    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]  # subclasses are dataclasses
            name = f"{type(self).__name__}: {field.name}"
            value = vars(self)[field.name]
            check_plain(name, value, str(field.type))
            if field.name in self.BOUNDS and isinstance(value, Real):
                self._check_bounds(name, value, *self.BOUNDS[field.name])
            words = self.CHOICES.get(field.name)
            if words is not None and (not isinstance(value, str) or value not in words):
                raise OptionError(f"{name}={shortened(value)} is unknown; choose {' or '.join(words)}")

    @staticmethod
    def _check_bounds(name: str, value: Any, least: float, most: float) -> None:
        if not least <= value <= most:
            raise OptionError(f"{name}={shortened(value)} is impossible; allowed: {least:,.12g} to {most:,.12g}")
