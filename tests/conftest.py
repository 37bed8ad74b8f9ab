"""What every test shares: no network, one thread, slow tests first, and the parity table."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

LOOPBACK = ("127.", "::1", "localhost")
Record = Callable[[str, str, float], None]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for the network fails as it would on a machine without one."""
    real = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        if self.family != socket.AF_UNIX and not str(host).startswith(LOOPBACK):
            raise OSError(f"tests have no network (tried {address})")
        real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture(autouse=True)
def engines() -> Iterator[None]:
    """Every engine that a test makes is closed after it; then its ledger is zero, its pages are in order, and it has
    never been idle with something lent out."""
    from descant.engine.engine import Engine  # here, after the lines above that torch reads when it is imported

    made: list[Engine] = []

    def init(self: Engine, *args: Any, **kwargs: Any) -> None:
        made.append(self)
        real(self, *args, **kwargs)

    real = Engine.__init__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "__init__", init)
        yield
    for engine in made:
        engine.close()
        engine.worker.slots.check_pages()
        assert engine.ledger().idle, engine.ledger()
        assert engine.worker.idle_faults == 0, "the engine was idle and its ledger was not"


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """``record(part, case, difference)``: one row of the table that ``make parity`` prints."""

    def write(part: str, case: str, difference: float) -> None:
        request.node.user_properties.append(("parity", [part, case, float(difference)]))

    return write


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--parity-table", action="store_true", help="print part, case and largest difference at the end")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that two workers end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def parity_rows(reporter: Any) -> list[list[Any]]:
    reports = [r for key in ("passed", "failed") for r in reporter.stats.get(key, ())]
    return [value for r in reports for key, value in r.user_properties if key == "parity"]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if not config.getoption("--parity-table"):
        return
    merged: dict[tuple[str, str], float] = {}
    for part, case, difference in parity_rows(terminalreporter):
        merged[part, case] = max(difference, merged.get((part, case), 0.0))
    width = [max([len(key[i]) for key in merged] + [4]) for i in (0, 1)]
    terminalreporter.write_sep("=", "parity with the reference, float32 on CPU")
    terminalreporter.write_line(f"{'part':{width[0]}}  {'case':{width[1]}}  largest difference")
    for (part, case), difference in sorted(merged.items()):
        shown = "equal" if difference == 0 else f"{difference:.1e}"
        terminalreporter.write_line(f"{part:{width[0]}}  {case:{width[1]}}  {shown}")
