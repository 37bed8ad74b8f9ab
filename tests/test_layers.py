"""Imports point down. This is the map of the rooms; an upward arrow or a cycle fails."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "descant"

# room -> the rooms it may import; every room may import itself. DESIGN.md draws the same map, and a test compares them.
MAP: dict[str, set[str]] = {
    room: set(below.split())
    for room, below in {
        "errors": "",
        "checks": "errors",
        "tools": "errors",
        "files": "errors",
        "pcm": "",
        "tokens": "",
        "types": "checks tools",
        "config": "",
        "nn": "errors",
        "inputs": "checks config errors files tokens tools types",
        "model": "config errors nn tokens types",
        "weights": "config errors files model nn types",
        "export": "config errors inputs weights",
        "engine": "checks config errors inputs model nn tokens tools types",
        "plan": "config engine errors model types weights",
        "omni": "checks config engine errors inputs model plan tokens tools types weights",
        "__init__": "errors omni tools types",
        "train": "config errors export files inputs model nn tokens types weights",
        "evals": "config errors omni train types",
        "bench": "config engine errors export inputs model nn omni plan remote tokens types weights",
        "remote": "errors files types",
        "server": "config engine errors inputs omni pcm tools types",
        "scale": "errors omni server types",
        "cli": "bench config errors evals files inputs omni pcm plan remote server tools types weights",
        "__main__": "cli",
    }.items()
}
TOP = {"bench", "cli", "evals", "scale", "server", "train", "__main__"}  # nothing below may import these


def room_of(path: Path, root: Path) -> str:
    first = path.relative_to(root).parts[0]
    return first.removesuffix(".py")


def imports(path: Path, root: Path) -> list[tuple[int, str]]:
    """(line, dotted name below ``descant``) for every import of ours in a file; ``""`` is the package itself."""
    package = ["descant", *path.relative_to(root).parts[:-1]]
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{stem}.{alias.name}" for alias in node.names]
        else:
            continue
        found += [(node.lineno, n.removeprefix("descant").lstrip(".")) for n in names if n.split(".")[0] == "descant"]
    return found


def resolve(name: str, root: Path) -> str:
    """The room that a dotted name lives in; a name of the package's own ``__init__`` is the room ``__init__``."""
    first = name.split(".")[0]
    return first if first and ((root / first).is_dir() or (root / f"{first}.py").is_file()) else "__init__"


def arrows(root: Path) -> dict[tuple[str, str], str]:
    """{(room, imported room): where} for a whole package."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        for line, name in imports(path, root):
            pair = (room_of(path, root), resolve(name, root))
            if pair[0] != pair[1]:
                found.setdefault(pair, f"{path.relative_to(root.parent)}:{line}")
    return found


def forbidden(root: Path, allowed: Mapping[str, set[str]]) -> list[str]:
    return [f"{where}: {a} may not import {b}" for (a, b), where in arrows(root).items() if b not in allowed[a]]


def dotted(path: Path, root: Path) -> str:
    """``nn/rope.py`` -> ``nn.rope``; a package's ``__init__`` bears the package's name."""
    return str(path.relative_to(root)).removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def modules(root: Path) -> dict[str, set[str]]:
    """Module -> modules it imports when it is imported (imports inside functions and TYPE_CHECKING do not count)."""
    graph: dict[str, set[str]] = {}
    names = {dotted(path, root) for path in root.rglob("*.py")}
    for path in root.rglob("*.py"):
        me = dotted(path, root)
        lines = eager_lines(path)
        targets = set()
        for line, name in imports(path, root):
            parts = name.split(".")
            known = [".".join(parts[:n]) for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in names]
            if line in lines and known:
                targets.add(known[0])
        graph[me] = targets - {me}
    return graph


def eager_lines(path: Path) -> set[int]:
    """Lines of import statements that run at import time."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lazy: set[int] = set()
    for node in ast.walk(tree):
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if typing_only or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lazy |= {n.lineno for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)}
    every = {n.lineno for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)}
    return every - lazy


def cycle(graph: Mapping[str, set[str]]) -> list[str]:
    """One cycle of a graph, or an empty list."""
    done: set[str] = set()

    def walk(node: str, trail: list[str]) -> list[str]:
        if node in trail:
            return [*trail[trail.index(node) :], node]
        if node in done:
            return []
        for nxt in sorted(graph.get(node, ())):
            if found := walk(nxt, [*trail, node]):
                return found
        done.add(node)
        return []

    for start in sorted(graph):
        if found := walk(start, []):
            return found
    return []


def test_every_room_is_on_the_map() -> None:
    rooms = {room_of(p, ROOT) for p in ROOT.rglob("*.py")}
    assert rooms <= set(MAP), f"draw these on the map here and in DESIGN.md: {sorted(rooms - set(MAP))}"


def test_imports_point_down() -> None:
    assert not (faults := forbidden(ROOT, MAP)), "\n".join(faults)


def test_every_arrow_of_the_map_is_used() -> None:
    """A map with slack proves less."""
    drawn = {(room, below) for room, allowed in MAP.items() for below in allowed}
    assert not (slack := drawn - set(arrows(ROOT))), f"erase these arrows here and in DESIGN.md: {sorted(slack)}"


def test_rooms_have_no_cycle() -> None:
    graph: dict[str, set[str]] = {}
    for a, b in arrows(ROOT):
        graph.setdefault(a, set()).add(b)
    assert not cycle(graph)


def test_modules_have_no_cycle() -> None:
    assert not cycle(modules(ROOT))


def test_the_map_itself_points_down() -> None:
    assert not cycle(MAP)
    for room, allowed in MAP.items():
        assert room in TOP or not (allowed & (TOP - {room})), room


def make(root: Path, files: Mapping[str, str]) -> Path:
    package = root / "descant"
    for name, source in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return package


@pytest.mark.parametrize(
    "source", ["from descant.omni import load", "import descant.omni", "from ..omni import load", "from .. import omni"]
)
def test_an_upward_arrow_is_caught(tmp_path: Path, source: str) -> None:
    package = make(tmp_path, {"nn/rope.py": source, "omni.py": "", "nn/__init__.py": ""})
    assert forbidden(package, MAP) == ["descant/nn/rope.py:1: nn may not import omni"]


def test_a_cycle_of_modules_is_caught(tmp_path: Path) -> None:
    files = {"nn/a.py": "from .b import x", "nn/b.py": "from descant.nn import a", "nn/__init__.py": ""}
    package = make(tmp_path, files)
    assert cycle(modules(package)) == ["nn.a", "nn.b", "nn.a"]


def test_the_trainer_its_tasks_and_nano_point_one_way() -> None:
    """Tasks draw from nano's curriculum, and both use the trainer: never the other way."""
    allowed = {"": set(), "nano": {""}, "tasks": {"", "nano"}}
    train = ROOT / "train"
    for path in sorted(train.rglob("*.py")):
        room = path.parent.name if path.parent != train else ""
        for line, name in imports(path, ROOT):
            parts = name.split(".")
            if parts[0] == "train":
                target = parts[1] if len(parts) > 1 and parts[1] in ("nano", "tasks") else ""
                assert target == room or target in allowed[room], f"{path.relative_to(ROOT)}:{line}: {name}"
