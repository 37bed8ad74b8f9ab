"""Measure a Python package: its size, and how easily it reads. ``python -m tests.measure [FOLDER]``.

Counts are of lines as they stand in the files, blank ones included. Public names are those that a module binds at its
top level without a leading underscore. The same script measures any tree, so that two commits, or two projects, can be
laid side by side.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

INFERENCE_ROOMS = ("nn", "model", "inputs", "weights", "engine", "top level")
PACKAGE = Path(__file__).resolve().parent.parent / "descant"
RIDDLE_OPENINGS = ("What", "Whether", "How")

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = Function | ast.ClassDef | ast.Module


@dataclass
class Measures:
    """The measures of one tree. homes: public name -> the files that bind it; defined: those of classes and functions.

    lengths: (lines, "file:line name") of every function.
    """

    lines: Counter[str] = field(default_factory=Counter)
    homes: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    defined: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    lengths: list[tuple[int, str]] = field(default_factory=list)
    pairs: int = 0
    docstrings: int = 0
    riddles: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.lines.values())

    @property
    def inference(self) -> int:
        """Lines of the rooms that answering needs."""
        return sum(self.lines[room] for room in INFERENCE_ROOMS)


def measure(root: Path) -> Measures:
    """Read every Python file below ``root``."""
    found = Measures()
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        found.lines[name.parts[0] if len(name.parts) > 1 else "top level"] += len(source.splitlines())
        add_names(found, tree, str(name))
        add_nodes(found, tree, str(name))
    return found


def add_names(found: Measures, tree: ast.Module, name: str) -> None:
    """Count the public names that one module binds."""
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef):
            if not node.name.startswith("_"):
                found.defined[node.name].add(name)
                found.homes[node.name].add(name)
        for bound in constants(node):
            found.homes[bound].add(name)


def constants(node: ast.stmt) -> Iterator[str]:
    """The public names that a statement assigns."""
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    for target in targets:
        for part in ast.walk(target):
            if isinstance(part, ast.Name) and not part.id.startswith("_"):
                yield part.id


def add_nodes(found: Measures, tree: ast.Module, name: str) -> None:
    """Count paired assignments, docstrings and functions of one module."""
    for node in ast.walk(tree):
        if is_paired(node):
            found.pairs += 1
        if isinstance(node, Function):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            found.lengths.append((length, f"{name}:{node.lineno} {node.name}"))
        if isinstance(node, Documented) and (text := ast.get_docstring(node)):
            found.docstrings += 1
            if text.split()[0] in RIDDLE_OPENINGS:
                line = 1 if isinstance(node, ast.Module) else node.lineno
                found.riddles.append(f"{name}:{line}")


def is_paired(node: ast.AST) -> bool:
    """True for ``a, b = x, y``: several values written as one assignment."""
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple)


def two_homes(homes: dict[str, set[str]]) -> dict[str, list[str]]:
    """The names that more than one module binds, with the modules."""
    return {name: sorted(files) for name, files in sorted(homes.items()) if len(files) > 1}


def report(found: Measures) -> str:
    lengths = sorted(length for length, _ in found.lengths)
    rows = {
        "lines": found.total,
        "lines of inference": found.inference,
        "  " + ", ".join(f"{room} {lines}" for room, lines in found.lines.most_common()): "",
        "functions": len(lengths),
        "function length, median / p90 / longest": f"{at(lengths, 0.5)} / {at(lengths, 0.9)} / {max(found.lengths)}",
        "public names": len(found.homes),
        "public names with two homes": len(two_homes(found.homes)),
        "  of them classes and functions": len(two_homes(found.defined)),
        "paired assignments per 1,000 lines": f"{1000 * found.pairs / found.total:.1f}",
        "docstrings that open with What, Whether or How": f"{len(found.riddles)} of {found.docstrings}",
    }
    return "\n".join(f"{name}: {value}" if value != "" else name for name, value in rows.items())


def at(ordered: list[int], share: float) -> int:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


if __name__ == "__main__":
    print(report(measure(Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE)))
