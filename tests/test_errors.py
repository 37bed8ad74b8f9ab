"""Errors: one tree in one file, nothing else is raised on purpose, codes are stable and listed, messages teach."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import descant
from descant import errors
from descant.inputs import door

ROOT = Path(__file__).resolve().parent.parent / "descant"
TREE = {name for name, value in vars(errors).items() if isinstance(value, type)}
# Python's own, where they are part of a protocol or say that the caller has a bug
OTHERS = {"AttributeError", "NotImplementedError", "PermissionError", "AssertionError"}
TYPER = {"typer.Exit"}
BUGS = {
    ("nn", "ValueError"),
    ("nn", "RuntimeError"),
    ("engine", "RuntimeError"),
}  # of our own code, not of what a person typed


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def subclasses(base: type[BaseException]) -> set[type[BaseException]]:
    return {base}.union(*(subclasses(child) for child in base.__subclasses__()))


def raised(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, name) of every ``raise Name`` or ``raise Name(...)``; re-raised variables do not count."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            target = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            name = ast.unparse(target)
            if name.split(".")[-1][0].isupper():
                yield node.lineno, name


def media_codes() -> Iterator[tuple[str, str]]:
    """(code, where) of every MediaError that is made; a part that varies is written as ``*``."""
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "MediaError" and node.args:
                first = node.args[0]
                if isinstance(first, ast.Constant):
                    yield str(first.value), f"{path.name}:{node.lineno}"
                elif isinstance(first, ast.JoinedStr):
                    parts = (v.value if isinstance(v, ast.Constant) else "*" for v in first.values)
                    yield "".join(map(str, parts)), f"{path.name}:{node.lineno}"


def listed_codes() -> set[str]:
    return set(re.findall(r"\b((?:media|image|audio|video)\.[a-z_]+)\b", door.__doc__ or ""))


def test_every_exception_of_the_package_is_in_the_tree() -> None:
    for module in pkgutil.walk_packages([str(ROOT)], "descant."):
        needs_ray = module.name.startswith("descant.scale.")  # an extra that this environment may do without
        if not module.name.endswith("__main__") and not (needs_ray and importlib.util.find_spec("ray") is None):
            importlib.import_module(module.name)
    ours = {e for e in subclasses(BaseException) if e.__module__.startswith("descant")}
    assert {e.__name__ for e in ours} == TREE and all(e.__module__ == "descant.errors" for e in ours)
    assert all(issubclass(e, descant.DescantError) for e in ours)


def test_the_tree_is_drawn_and_every_error_is_explained() -> None:
    assert all(name in (errors.__doc__ or "") and vars(errors)[name].__doc__ for name in TREE)


def test_what_a_caller_catches_is_public() -> None:
    assert {"DescantError", "MediaError", "OptionError"} <= set(descant.__all__)


def test_nothing_else_is_raised_on_purpose() -> None:
    faults = [
        f"{path.relative_to(ROOT)}:{line} raises {name}"
        for path, tree in sources()
        for line, name in raised(tree)
        if name not in TREE | OTHERS | TYPER and (path.parent.name, name) not in BUGS
    ]
    assert not faults, "\n".join(faults)


def test_every_code_of_a_media_error_is_listed_by_the_door() -> None:
    listed = listed_codes()
    assert len(listed) > 20
    for code, where in media_codes():
        pattern = re.compile(re.escape(code).replace(r"\*", "[a-z_]+"))
        assert any(pattern.fullmatch(known) for known in listed), f"{where}: {code} is not in the list of door.py"


def test_every_listed_code_is_used() -> None:
    used = [re.compile(re.escape(code).replace(r"\*", "[a-z_]+")) for code, _ in media_codes()]
    assert not [code for code in listed_codes() if not any(pattern.fullmatch(code) for pattern in used)]


def test_a_media_error_carries_its_code() -> None:
    error = descant.MediaError("audio.too_long", "the sound lasts 301 s")
    assert error.code == "audio.too_long" and str(error) == "the sound lasts 301 s"


@pytest.mark.parametrize(
    "line, found",
    [
        ("raise ValueError('x')", ["ValueError"]),
        ("raise http.HTTPError(3)", ["http.HTTPError"]),
        ("raise table.error('x')", []),
        ("raise", []),
        ("raise error from cause", []),
    ],
)
def test_the_search_finds_what_is_raised(line: str, found: list[str]) -> None:
    assert [name for _, name in raised(ast.parse(line))] == found
