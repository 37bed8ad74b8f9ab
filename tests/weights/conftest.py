"""Folders that several tests of this room read; whoever changes one copies it first."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import tiny

Copy = Callable[[Path], Path]


@pytest.fixture(scope="session")
def seven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 7B-like folder made by transformers."""
    return tiny.write_reference(tmp_path_factory.mktemp("reference") / "7b", "7b")


@pytest.fixture(scope="session")
def three_tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 3B-like folder made by transformers, with a tied text head."""
    return tiny.write_reference(tmp_path_factory.mktemp("reference") / "3b", "3b", tied=True)


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder made by our own writer, with the small vocoder."""
    return tiny.write_descant(tmp_path_factory.mktemp("descant") / "7b")


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    """A private copy of a folder."""
    return lambda folder: Path(shutil.copytree(folder, tmp_path / "copy"))
