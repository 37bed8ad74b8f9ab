"""The README is true: its Python runs, its commands and options exist, its tree and its numbers too."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import descant
from descant import omni as omnis
from descant.cli import inspect
from descant.cli.errors import run
from descant.weights.fetch import embedded
from tests import tiny
from tests.test_layers import MAP

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = ("README.md", "DESIGN.md", "CONTRIBUTING.md", "CHANGELOG.md", "LOG.md")


def blocks(language: str) -> list[str]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [body for name, body in fences if name == language]


def commands(text: str) -> list[list[str]]:
    """Every `descant ...` line of a block, without the words that explain it."""
    lines = [re.split(r"\s{3,}|\s\|\s|\s#", line.strip())[0] for line in text.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("descant ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_descant(tmp_path_factory.mktemp("readme") / "tiny")


@pytest.mark.parametrize("snippet", blocks("python"), ids=lambda s: s.splitlines()[0])
def test_the_python_runs(snippet: str, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if "nano" not in embedded():  # a checkout without weights still runs the same lines
        load = omnis.load
        monkeypatch.setattr(omnis, "load", lambda name: load(folder))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(snippet, "README.md", "exec"), names)
    assert isinstance(names["event"], descant.Finished)


def test_there_is_python_and_it_is_short() -> None:
    assert [len(block.strip().splitlines()) for block in blocks("python")] == [10, 10, 10]


def test_every_command_and_option_of_the_terminal_exists(capsys: pytest.CaptureFixture[str]) -> None:
    found = [words for block in blocks("") for words in commands(block)]
    assert {words[0] for words in found} == {
        "chat", "ask", "say", "transcribe", "inspect", "voices", "trace", "eval", "serve", "bench"
    }  # fmt: skip
    for words in found:
        assert run([words[0], "--help"]) == 0
        help_text = capsys.readouterr().out
        for word in words[1:]:
            assert not word.startswith("--") or word in help_text, word


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_everything_in_the_tree_is_there() -> None:
    tree = next(block for block in blocks("") if "CONTRIBUTING.md" in block)
    for line in tree.splitlines():
        base = ROOT / "descant" if line.startswith("  ") else ROOT
        for name in re.findall(r"(?:^\s*|\s{3,})([A-Za-z_]+(?:\.[a-z]+|/)|Makefile|NOTICE)(?=\s)", line):
            assert (base / name).exists(), f"{name} of the tree is not in {base.name}/"


def test_every_room_is_in_the_tree() -> None:
    rooms = {p.name for p in (ROOT / "descant").iterdir() if p.is_dir() and p.name not in ("__pycache__",)}
    assert all(f"  {room}/" in README for room in rooms), rooms


@pytest.mark.parametrize("name", ["7b", "3b"])
def test_the_parameter_counts_are_right(name: str) -> None:
    assert f"{inspect.inspect_folder(ROOT / 'tests' / 'data' / name).parameters:,}" in " ".join(README.split())


def test_the_design_draws_the_map_that_is_tested() -> None:
    drawn = re.search(r"^```map\n(.*?)^```$", (ROOT / "DESIGN.md").read_text(), re.MULTILINE | re.DOTALL)
    assert drawn is not None
    rows = (line.split("->") for line in drawn.group(1).splitlines())
    assert {room.strip(): set(below.split()) for room, below in rows} == MAP


@pytest.mark.parametrize("name", DOCUMENTS)
def test_named_files_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for path in re.findall(r"`((?:descant|tests|recipes|benchmarks|weights|model|inputs|engine)/[\w/.-]+\.\w+)", text):
        assert (ROOT / path).exists() or (ROOT / "descant" / path).exists(), f"{name} names {path}"


def test_the_parser_of_this_file_finds_what_it_should() -> None:
    assert commands('descant ask "a b" --image F   why\nmake x\ndescant say x | head') == [
        ["ask", "a b", "--image", "F"],
        ["say", "x"],
    ]
