"""The house rules that a machine can read: sizes, broad excepts, guessing at attributes, pass-through keywords."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.measure import measure, two_homes

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = sorted((ROOT / "descant").rglob("*.py"))
MAX_FUNCTION = 60  # lines, signature and docstring included
MAX_FILE = 400  # lines
MAX_PARAMETERS = 8  # self and cls not counted

# The places where any exception may be caught: the command's, the request's and the worker's boundary, and the
# tokenizer library's; the server's, before and in a response (rule 7).
BROAD_EXCEPT_ALLOWED = {
    f"descant/{name}"
    for name in (
        "cli/errors.py",
        "engine/boundary.py",
        "engine/worker.py",
        "inputs/tokenizer.py",
        "server/gate.py",
        "server/sse.py",
    )
}
MAX_BROAD = 6
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


def is_program(fn: Function) -> bool:
    """A program of Triton: its parameters are the pointers, strides and sizes that it is launched with."""
    return any(ast.unparse(one).startswith("triton.jit") for one in fn.decorator_list)


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
        if len(parameters(fn)) > MAX_PARAMETERS and not (is_command(fn) or is_program(fn)):
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


# ---------------------------------------------------------------- one vocabulary

TWO_HOMES_ALLOWED = {"main", "log"}  # the entry points of three commands; the logger of a module
MAX_PAIRS_PER_1000 = 4.0
LONGEST_FUNCTION = 40  # lines: below the cap of 60, so that nobody gets used to it


def nameless_numbers(source: str) -> list[str]:
    """Public numeric constants of one word: a number is a noun with its unit, or with what it bounds."""
    found = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and is_number(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found += [t.id for t in targets if isinstance(t, ast.Name) and t.id.isupper() and "_" not in t.id]
    return found


def is_number(node: ast.expr | None) -> bool:
    """True for a literal number, or an expression of them."""
    if isinstance(node, ast.BinOp):
        return is_number(node.left) and is_number(node.right)
    if isinstance(node, ast.UnaryOp):
        return is_number(node.operand)
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def test_no_public_name_has_two_homes() -> None:
    found = two_homes(measure(ROOT / "descant").homes)
    assert not (doubled := set(found) - TWO_HOMES_ALLOWED), {name: found[name] for name in doubled}


def test_numbers_are_named_with_their_unit() -> None:
    found = {name: numbers for name, source in each_file() if (numbers := nameless_numbers(source))}
    assert not found


def test_docstrings_say_what_a_thing_does() -> None:
    assert not (riddles := measure(ROOT / "descant").riddles), riddles


def test_unrelated_values_stand_on_lines_of_their_own() -> None:
    found = measure(ROOT / "descant")
    assert 1000 * found.pairs / found.total < MAX_PAIRS_PER_1000


def test_functions_are_short() -> None:
    length, name = max(measure(ROOT / "descant").lengths)
    assert length < LONGEST_FUNCTION, name


def test_the_rules_of_the_vocabulary_bite(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('def draw():\n    """What is drawn."""\n    a, b = 1, 2\nLIMIT = 3\nMAX_BYTES = 4\n')
    (tmp_path / "b.py").write_text("def draw(): ...\n")
    found = measure(tmp_path)
    assert two_homes(found.homes) == {"draw": ["a.py", "b.py"]} and found.pairs == 1 and found.riddles == ["a.py:1"]
    assert nameless_numbers((tmp_path / "a.py").read_text()) == ["LIMIT"]
