"""Every program beside the package can still be started: what it imports is where it looks for it."""

from __future__ import annotations

import ast
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = sorted([*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "recipes").glob("*.py")])


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_its_names_are_where_it_looks(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        top = node.module.split(".")[0]
        assert (path.parent / f"{top}.py").exists() or find_spec(top) is not None, f"there is no module {node.module}"
        if top not in ("descant", "tests"):
            continue
        home = import_module(node.module)
        missing = [one.name for one in node.names if one.name not in vars(home)]
        assert not [name for name in missing if find_spec(f"{node.module}.{name}") is None], node.module


def test_there_are_programs() -> None:
    assert len(PROGRAMS) > 5
