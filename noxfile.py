"""``nox -s clients``: people's own clients, each in an environment of its own, against ``descant serve`` with nano.

Run nox from the environment that descant is installed in (it is in the extra ``dev``): the server runs there. One
client alone: ``nox -s "clients(openai)"``. Drivers: tests/clients/drivers, versions: tests/clients/requirements;
both of Node's clients in tests/clients/node. ``nox -s scale``: the server as replicas under Ray Serve.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

import nox

nox.options.sessions = ["clients"]
nox.options.default_venv_backend = "virtualenv"
HERE = Path("tests/clients")
PYTHON_CLIENTS = [path.stem for path in sorted((HERE / "requirements").glob("*.txt"))]
NODE_CLIENTS = [path.parent.name for path in sorted((HERE / "node").glob("*/package.json"))]


@nox.session
@nox.parametrize("client", [nox.param(name, id=name) for name in PYTHON_CLIENTS + NODE_CLIENTS])
def clients(session: nox.Session, client: str) -> None:
    """Drive one client; it prints a line with its version and what was done."""
    rig = [sys.executable, str(HERE / "rig.py")]
    if client in PYTHON_CLIENTS:
        session.install("--quiet", "-r", str(HERE / "requirements" / f"{client}.txt"))
        driver = ["python", str(HERE / "drivers" / f"drive_{client.replace('-', '_')}.py")]
        python = Path(session.bin) / driver[0]
        session.run(*rig, "--", str(python), driver[1], external=True)
    else:
        home = Path(session.create_tmp())
        for path in (HERE / "node" / "common.mjs", *(HERE / "node" / client).iterdir()):
            shutil.copy(path, home / path.name)
        session.run("npm", "install", "--prefix", str(home), "--silent", "--no-audit", "--no-fund", external=True)
        session.run(*rig, "--tls", "--", "node", str(home / "drive.mjs"), external=True)


@nox.session
def scale(session: nox.Session) -> None:
    """Two replicas under Ray Serve. Ray (350 MB) lies beside the packages of the environment that nox runs in."""
    inside = session.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", silent=True)
    Path(str(inside).strip(), "around.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    session.install("--quiet", "-c", "constraints.txt", "ray[serve]>=2.60")
    # with ray come uvloop and httptools, which uvicorn would take: the gate's tests hold with them, too
    session.run("python", "-m", "pytest", "-s", "-p", "no:xdist", "tests/scale", "tests/server/test_gate.py")
