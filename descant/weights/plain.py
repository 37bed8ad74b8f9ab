"""Our own dataclasses as JSON objects: field names are keys, nothing else is allowed."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from descant.weights.strict import ConfigTable

MAX_PIXELS = 2**27  # of a whole video; the official total is 90,316,800
PlainType = TypeVar("PlainType")


def read_plain(kind: type[PlainType], table: ConfigTable) -> PlainType:
    """``kind`` (a dataclass of plain values, tuples and optional strings) from an object with its field names."""
    hints = get_type_hints(kind)
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    table.known.update(field.name for field in fields)
    values: dict[str, Any] = {}
    for field in fields:
        if field.name in table.data:
            values[field.name] = read_value(table, field.name, hints[field.name])
        elif field.default is dataclasses.MISSING:
            raise table.error(field.name, f"is missing; expected {hints[field.name]}")
    table.close(ours=True)
    return kind(**values)


def read_value(table: ConfigTable, name: str, hint: Any) -> Any:
    """One value of the type ``hint``; literals are strings of a closed set."""
    if hint is bool:
        return table.flag(name)
    if hint is int:
        return table.integer(name, minimum=0, maximum=MAX_PIXELS)
    if hint is float:
        return table.number(name, low=-1e12)
    if str in get_args(hint):  # str | None
        return table.text(name, None)
    if hint is not None and all(isinstance(arg, str) for arg in get_args(hint)) and get_args(hint):  # Literal
        word = table.text(name, None)
        if word not in get_args(hint):
            raise table.error(name, f"is {word!r}; expected one of {', '.join(get_args(hint))}")
        return word
    if get_origin(hint) is tuple:
        inner = get_args(hint)[0]
        if inner is int:
            return table.integers(name, minimum=0)
        value: object = table.data[name]
        return table.numbers(name, (), len(value) if isinstance(value, list) else 0)
    raise table.error(name, f"has a type that this reader does not know: {hint}")
