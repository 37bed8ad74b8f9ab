"""The command: it starts, serves, and ends when it is told to, with what is being said said to its end."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from descant.cli.errors import run
from tests import tiny

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_signal_ends_it_once_answers_have_ended(tmp_path: Path) -> None:
    folder = tiny.write_descant(tmp_path / "tiny")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "descant", "serve", "--model", str(folder), "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            ready(url)
            asked = {"messages": [{"role": "user", "content": "hello"}], "stream": True, "max_tokens": 2000, "seed": 3}
            asked |= {"temperature": 1.5}
            with (
                httpx.Client(timeout=60) as client,
                client.stream("POST", f"{url}/v1/chat/completions", json=asked) as told,
            ):
                lines = told.iter_lines()
                assert json.loads(next(lines).removeprefix("data: "))
                process.send_signal(signal.SIGTERM)
                rest = [line for line in lines if line]
            assert rest[-1] == "data: [DONE]" and len(rest) > 3
            assert process.wait(30) in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
        finally:
            process.kill()
        assert process.stderr is not None
        log = process.stderr.read()
    assert (
        "curl" in log
        and '"path": "/v1/chat/completions", "status": 200' in log
        and "hello" not in log.split("try:")[1][200:]
    )


def ready(url: str) -> None:
    for _ in range(600):
        try:
            if httpx.get(f"{url}/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError("the server does not get ready")


def test_a_server_for_others_without_a_key_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--host", "0.0.0.0"]) == 2
    assert "there is no key" in capsys.readouterr().err
