"""``nox -s clients``: people's own clients, each in an environment of its own, against ``descant serve`` with nano.

Run nox from the environment that descant is installed in (it is in the extra ``dev``): the server runs there. One
client alone: ``nox -s "clients(openai)"``. Drivers: tests/clients/drivers, versions: tests/clients/requirements;
both of Node's clients in tests/clients/node.
"""

from __future__ import annotations

import shutil
import sys
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
