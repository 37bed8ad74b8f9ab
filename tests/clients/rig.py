"""Run one client's driver against ``descant serve`` with nano on this machine: ``python rig.py [--tls] -- COMMAND``.

The driver is told by its environment: DESCANT_URL (http://127.0.0.1:PORT), DESCANT_KEY, DESCANT_MEDIA (a folder).
It passes when the driver ends with 0, the server answered nothing with a 500, nothing is lent out in it any more, and
it ends when it is told to.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "descant" / "assets" / "demo"
QUESTIONS = {"sum": "What is nine plus nine?", "colour": "What colour is it?"}  # nano says them, and understands itself
READY_S, DRIVER_S, END_S = 120, 300, 40  # seconds: until it is ready; of a driver; until it has ended
IDLE_S = 5  # seconds after a client has gone, in which what it was lent comes back
RATES_HZ = (16_000, 24_000)
LEDGER = ("sessions", "live_sessions", "waiting", "thinker_pages", "talker_pages")


@dataclass
class Rig:
    """A server that serves. log: what it wrote."""

    url: str
    key: str
    media: Path
    log: Path
    certificate: Path | None
    process: subprocess.Popen[bytes]

    def ask(self, path: str, body: dict[str, object] | None = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        asked = urllib.request.Request(f"{self.url}{path}", data, headers)
        context = None if self.certificate is None else ssl.create_default_context(cafile=str(self.certificate))
        with urllib.request.urlopen(asked, timeout=60, context=context) as answer:
            told: bytes = answer.read()
        return told

    def is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise SystemExit(f"the server ended with {self.process.returncode}:\n{self.log.read_text()}")
        try:
            self.ask("/ready")
        except (urllib.error.URLError, ConnectionError):
            return False
        return True

    def environment(self) -> dict[str, str]:
        given = {"DESCANT_URL": self.url, "DESCANT_KEY": self.key, "DESCANT_MEDIA": str(self.media)}
        if self.certificate is not None:
            given["NODE_EXTRA_CA_CERTS"] = str(self.certificate)
        return {**os.environ, **given}


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """(certificate, key) for 127.0.0.1, signed by itself."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def write_media(rig: Rig) -> None:
    """sum-16000.wav, ..., colour-24000.wav: the questions; and the demo's picture, and its spoken question about it."""
    for name, question in QUESTIONS.items():
        said = {"model": "nano", "voice": "alloy", "input": question, "response_format": "pcm", "seed": 1}
        pcm = np.frombuffer(rig.ask("/v1/audio/speech", said), "<i2")
        for rate in RATES_HZ:
            with wave.open(str(rig.media / f"{name}-{rate}.wav"), "wb") as file:
                file.setparams((1, 2, rate, 0, "NONE", "not compressed"))
                file.writeframes(soxr.resample(pcm, 24_000, rate).astype("<i2").tobytes())
    for name in ("stars.png", "question.wav"):
        shutil.copy(DEMO / name, rig.media / name)
    Image.open(DEMO / "stars.png").convert("RGB").save(rig.media / "stars.jpg", quality=90)


@contextmanager
def serving(*, tls: bool = False) -> Iterator[Rig]:
    """A server of nano, until the block ends; then it is told to end, and must."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as free:
        home = Path(folder)
        port = free.getsockname()[1]
        free.close()
        command = [sys.executable, "-m", "descant", "serve", "--port", str(port)]
        certificate = None
        if tls:
            certificate, private = write_certificate(home)
            command += ["--tls-certificate", str(certificate), "--tls-key", str(private)]
        key, log = secrets.token_hex(16), home / "log"
        given = {**os.environ, "DESCANT_API_KEYS": json.dumps([key]), "PYTHONPATH": str(ROOT)}
        with log.open("wb") as out:
            process = subprocess.Popen(command, cwd=home, env=given, stdout=out, stderr=out)
        rig = Rig(f"http{'s' if tls else ''}://127.0.0.1:{port}", key, home / "media", log, certificate, process)
        rig.media.mkdir()
        try:
            end = time.monotonic() + READY_S
            while not rig.is_ready():
                if time.monotonic() > end:
                    raise SystemExit(f"the server is not ready after {READY_S} s:\n{log.read_text()}")
                time.sleep(0.1)
            write_media(rig)
            yield rig
            process.send_signal(signal.SIGTERM)
            code = process.wait(END_S)
            if code not in (0, -signal.SIGTERM):
                raise SystemExit(f"the server ended with {code}:\n{log.read_text()}")
        finally:
            process.kill()
            process.wait()


def lent(rig: Rig) -> dict[str, float]:
    """What the engine has lent out, by name."""
    told = dict(re.findall(r"^(\w+) (\S+)$", rig.ask("/metrics").decode(), re.MULTILINE))
    return {name: float(told[f"descant_{name}"]) for name in LEDGER}


def faults(rig: Rig) -> list[str]:
    """What is wrong with a server once its client has gone."""
    log = [line for line in rig.log.read_text(errors="replace").splitlines() if '"code": "loading"' not in line]
    found = [line for line in log if re.search(r'"status": 5\d\d|Traceback', line)]
    end = time.monotonic() + IDLE_S
    while any(lent(rig).values()) and time.monotonic() < end:
        time.sleep(0.05)
    return found + [f"{name} lent out: {value:g}" for name, value in lent(rig).items() if value]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tls", action="store_true", help="https, by a certificate that is made now")
    parser.add_argument("command", nargs="+", help="the driver, after --")
    given = parser.parse_args()
    with serving(tls=given.tls) as rig:
        try:
            code = subprocess.run(given.command, env=rig.environment(), timeout=DRIVER_S, check=False).returncode
        except subprocess.TimeoutExpired:
            print(f"the driver was not done after {DRIVER_S} s")
            code = 1
        wrong = faults(rig)
        if code or wrong:
            print(*wrong, f"the driver ended with {code}; the server's log:", rig.log.read_text(), sep="\n")
    return 1 if code or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
