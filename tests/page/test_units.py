"""The page's own unit tests: audio, protocols, storage and words, by vitest."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.page.conftest import ROOT

WEB = ROOT / "web"


@pytest.mark.skipif(not (WEB / "node_modules").is_dir() or shutil.which("npm") is None, reason="see: make page")
def test_the_units_of_the_page_hold() -> None:
    command = ["npm", "test", "--silent"]
    done = subprocess.run(command, cwd=WEB, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
