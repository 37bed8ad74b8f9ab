"""The house rules that a machine can read: sizes, broad excepts, guessing at attributes, pass-through keywords."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = sorted((ROOT / "descant").rglob("*.py"))
MAX_FUNCTION = 60  # lines, signature and docstring included
MAX_FILE = 400  # lines
MAX_PARAMETERS = 8  # self and cls not counted

# The places where any exception may be caught: the command's, the request's and the worker's boundary (rule 7).
BROAD_EXCEPT_ALLOWED = {f"descant/{n}" for n in ("cli/errors.py", "engine/boundary.py", "engine/worker.py")}
MAX_BROAD = 3
TRANSFORMERS_ALLOWED = "descant/bench/reference.py"

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def parameters(fn: Function) -> list[str]:
    args = [a.arg for a in fn.args.posonlyargs + fn.args.args + fn.args.kwonlyargs]
    return [a for a in args if a not in ("self", "cls")]


def is_command(fn: Function) -> bool:
    """A command of the CLI: its parameters are the flags a person types, each typed and documented on its own."""
    hints = [ast.unparse(a.annotation) for a in fn.args.args if a.annotation is not None]
    return bool(hints) and all("Option" in hint or "Argument" in hint for hint in hints)


def size_faults(source: str, name: str) -> list[str]:
    """Functions, files and signatures over the caps."""
    faults = []
    lines = source.count("\n")
    if lines > MAX_FILE:
        faults.append(f"{name}: {lines} lines (at most {MAX_FILE})")
    for fn in functions(ast.parse(source)):
        length = (fn.end_lineno or fn.lineno) - fn.lineno + 1
        if length > MAX_FUNCTION:
            faults.append(f"{name}:{fn.lineno} {fn.name}: {length} lines (at most {MAX_FUNCTION})")
        if len(parameters(fn)) > MAX_PARAMETERS and not is_command(fn):
            faults.append(f"{name}:{fn.lineno} {fn.name}: {len(parameters(fn))} parameters (at most {MAX_PARAMETERS})")
    return faults


def broad_excepts(source: str) -> list[int]:
    """Line numbers of ``except:``, ``except Exception`` and ``except BaseException``."""
    broad = {"Exception", "BaseException"}
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler):
            names = {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)} if node.type else broad
            if names & broad:
                found.append(node.lineno)
    return found


def guesses(source: str, name: str) -> list[str]:
    """``hasattr``, ``getattr`` with a default, and ``**kwargs`` without types (PEP 692 gives them)."""
    faults = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "hasattr" or (node.func.id == "getattr" and len(node.args) == 3):
                faults.append(f"{name}:{node.lineno} {ast.unparse(node)}: know the type instead")
        if isinstance(node, Function) and node.args.kwarg is not None and not is_typed(node.args.kwarg):
            faults.append(f"{name}:{node.lineno} {node.name}(**{node.args.kwarg.arg}): name the parameters")
    return faults


def is_typed(kwarg: ast.arg) -> bool:
    """True for ``**options: Unpack[AnswerOptions]``: every name and type is known."""
    return kwarg.annotation is not None and ast.unparse(kwarg.annotation) == "Unpack[AnswerOptions]"


def each_file() -> Iterator[tuple[str, str]]:
    for path in PACKAGE:
        yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def test_functions_files_and_signatures_stay_small() -> None:
    faults = [f for name, source in each_file() for f in size_faults(source, name)]
    assert not faults, "\n".join(faults)


def test_broad_excepts_are_at_the_boundaries_only() -> None:
    found = {name: broad_excepts(source) for name, source in each_file()}
    found = {name: lines for name, lines in found.items() if lines}
    assert set(found) == BROAD_EXCEPT_ALLOWED, found
    assert sum(len(lines) for lines in found.values()) <= MAX_BROAD, found


def test_nothing_guesses_at_attributes_or_passes_keywords_through() -> None:
    faults = [f for name, source in each_file() for f in guesses(source, name)]
    assert not faults, "\n".join(faults)


def test_nothing_of_transformers_is_imported() -> None:
    """Except by the bench's peer, and there only when a comparison is asked for: inside a function."""
    for name, source in each_file():
        if name == TRANSFORMERS_ALLOWED:
            assert "\nfrom transformers" not in source and "\nimport transformers" not in source
            continue
        for node in ast.walk(ast.parse(source)):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(m.split(".")[0] == "transformers" for m in modules), f"{name}:{node.lineno}"


def test_text_speaks_of_the_project_only() -> None:
    """No path of somebody's machine in what we ship."""
    machine = ("/work/", "/home/", "/root/", "/Users/")
    for path in [*PACKAGE, *ROOT.glob("*.md"), ROOT / "Makefile"]:
        text = path.read_text(encoding="utf-8")
        assert not any(m in text for m in machine), path


LONG = "def f():\n" + "    pass\n" * MAX_FUNCTION


@pytest.mark.parametrize(
    "source",
    [
        LONG,
        "x = 1\n" * (MAX_FILE + 1),
        "def f(a, b, c, d, e, f, g, h, i): pass\n",
        "def f(a, b, c, d, *, e, f, g, h, i): pass\n",
    ],
    ids=["function", "file", "parameters", "keyword parameters"],
)
def test_the_size_rule_bites(source: str) -> None:
    assert size_faults(source, "x.py")


@pytest.mark.parametrize("handler", ["except:", "except Exception:", "except (OSError, BaseException) as e:"])
def test_the_except_rule_bites(handler: str) -> None:
    assert broad_excepts(f"try:\n    pass\n{handler}\n    pass\n") == [3]


@pytest.mark.parametrize("line", ["hasattr(x, 'y')", "getattr(x, 'y', None)", "def f(**kwargs): g(**kwargs)"])
def test_the_guessing_rule_bites(line: str) -> None:
    assert guesses(line, "x.py")


def test_the_rules_spare_what_is_fine() -> None:
    body = "    try:\n        return getattr(a, b)\n    except OSError:\n        raise\n"
    fine = f"def f(self, a, b, c, d, e, f, g, h):\n{body}"
    assert not guesses("def f(**options: Unpack[AnswerOptions]): pass", "x.py")
    assert not size_faults(fine, "x.py") and not broad_excepts(fine) and not guesses(fine, "x.py")
