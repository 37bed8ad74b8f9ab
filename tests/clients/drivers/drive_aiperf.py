"""aiperf: a load test of streamed chat, and one with made-up sound as input, at two at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import common

NANO = Path(__file__).resolve().parents[3] / "descant" / "assets" / "nano"
REQUESTS = 6


def profile(*options: str) -> dict[str, dict[str, float]]:
    """Its summary of one run. It finds a tokenizer in a folder only where nothing says to stay offline."""
    home = {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")}
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).parent / "aiperf"), "profile", "--model", "nano", "--url", common.URL]
        command += ["--endpoint-type", "chat", "--streaming", "--api-key", common.KEY, "--tokenizer", str(NANO)]
        command += ["--concurrency", "2", "--request-count", str(REQUESTS), "--ui-type", "simple", "--random-seed", "1"]
        command += ["--no-server-metrics", "--no-gpu-telemetry", "--artifact-dir", folder, *options]
        done = subprocess.run(command, capture_output=True, text=True, env=home, check=False)
        found = list(Path(folder).rglob("profile_export_aiperf.json"))
        assert done.returncode == 0 and found, done.stdout[-3000:] + done.stderr[-3000:]
        told: dict[str, dict[str, float]] = json.loads(found[0].read_text())
    return told


def check(told: dict[str, dict[str, float]]) -> None:
    assert told["request_count"]["avg"] == REQUESTS, told["request_count"]
    assert not told.get("error_summary"), told["error_summary"]
    assert 0 < told["time_to_first_token"]["avg"] <= told["request_latency"]["avg"]


check(profile("--prompt-input-tokens-mean", "20", "--prompt-output-tokens-mean", "16"))
sound = ("--audio-batch-size", "1", "--audio-length-mean", "1", "--audio-sample-rates", "16", "--audio-format", "wav")
check(profile("--prompt-input-tokens-mean", "8", "--prompt-output-tokens-mean", "16", *sound))
common.passed("aiperf", f"{REQUESTS} streamed chats at 2 at once, {REQUESTS} with sound in")
