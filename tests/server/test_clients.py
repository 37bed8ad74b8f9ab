"""The driver of OpenAI's Python client, as ``nox -s clients`` runs it: unmodified, ``descant serve``, nano."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from descant.weights.fetch import embedded

CLIENTS = Path(__file__).resolve().parents[1] / "clients"


@pytest.mark.skipif("nano" not in embedded(), reason="this checkout has no trained nano")
def test_the_openai_client_passes_its_driver() -> None:
    command = [sys.executable, str(CLIENTS / "rig.py"), "--", sys.executable, str(CLIENTS / "drivers/drive_openai.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith("openai "), done.stdout + done.stderr
