"""``python -m tests.badinputs.serve``: a server of a tiny model of random weights, to send the catalogue to."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import descant
from descant.server.app import make_app
from descant.server.media import SERVER_BUDGET
from descant.server.run import Server, config_of
from descant.server.settings import ServerSettings
from tests import tiny


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        decoding = descant.Decoding(solver="euler", points=3, early=True)
        omni = descant.load(tiny.write_descant(Path(folder) / "tiny"), latency=decoding, budget=SERVER_BUDGET)
        settings = ServerSettings(model="tiny", port=int(sys.argv[1]), api_keys=(sys.argv[2],), stall_s=2, head_s=2)
        gate = make_app(settings, omni)
        server = Server(config_of(gate, settings))
        server.gate = gate
        server.run()


if __name__ == "__main__":
    main()
