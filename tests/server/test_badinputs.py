"""The catalogue of bad inputs, section by section, and that its runner sees what does not hold."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import descant
from descant.server.media import SERVER_BUDGET
from descant.server.settings import ServerSettings
from tests import tiny
from tests.badinputs.__main__ import report
from tests.badinputs.case import CHAT, Case, Http, Talk, fields, said
from tests.badinputs.catalogue import CASES, by_section
from tests.badinputs.doors import ELSEWHERE
from tests.badinputs.runner import Server, run
from tests.server.conftest import KEY
from tests.server.conftest import run as served

LISTED = {"A": 25, "B": 17, "C": 8, "D": 17, "E": 19, "F": 14, "G": 6, "H": 8, "I": 17, "J": 2}  # ids of each section


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tiny.write_descant(tmp_path_factory.mktemp("model") / "tiny")
    omni = descant.load(folder, latency=descant.Decoding(solver="euler", points=3, early=True), budget=SERVER_BUDGET)
    settings = ServerSettings(api_keys=(KEY,), model="tiny", requests_per_key=8)
    for running in served(omni, settings):
        yield Server(running.url, KEY)


@pytest.mark.parametrize("section", sorted(LISTED))
def test_every_case_of_a_section_holds(section: str, target: Server) -> None:
    cases = [case for case in CASES if case.id[0] == section and not case.slow]
    failed = [f"{case.id} {case.name}: {'; '.join(found)}" for case, found in run(target, cases) if found]
    assert not failed, "\n".join(failed)


def test_the_catalogue_is_whole() -> None:
    ids = {case.id for case in CASES} | set(ELSEWHERE)
    counts = {section: len({name for name in ids if name[0] == section}) for section in LISTED}
    assert all(counts[section] >= least for section, least in LISTED.items()), counts
    assert sum(by_section().values()) > 540
    assert len({(case.id, case.name, str(case.sends)) for case in CASES}) == len(CASES)


QUIET = '{"type": "session.update", "session": {"type": "realtime"}}'
BROKEN = [
    (fields("X1", "a request that is fine", {}), "status 200, not 400"),
    (Case("X2", "another code", Http(b"{", CHAT), codes=("fine",)), "code invalid_json, not fine"),
    (Case("X3", "no error in a talk", Talk((QUIET,), ("bad",))), "none of bad"),
    (Case("X4", "a talk that should end", Talk((), closed=(1008,))), "closed with 0, not 1008"),
    (Case("X5", "a page that leaks", Http(None, "/v1/models/Traceback", "GET"), (404,)), ""),
]  # fmt: skip


@pytest.mark.parametrize("case, words", BROKEN, ids=lambda value: value.id if isinstance(value, Case) else "")
def test_the_runner_sees_what_does_not_hold(case: Case, words: str, target: Server) -> None:
    ((_, found),) = run(target, [case])
    assert words in "; ".join(found) if words else not found


def test_the_runner_sees_what_did_not_survive(target: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["one", "two"])
    monkeypatch.setattr(Server, "canary", lambda self: next(answers))
    monkeypatch.setattr(Server, "lent_out", lambda self: {"sessions": 1.0})
    monkeypatch.setattr("tests.badinputs.runner.IDLE_S", 0.05)
    ((_, found),) = run(target, [fields("X1", "fine", {"messages": said("x")}, 200)])
    assert found == ["the canary's answer changed", "still lent out: {'sessions': 1.0}"]


def test_the_report_says_what_was_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    case = fields("A1", "x", {})
    assert report([(case, []), (case, ["broke"])], [case]) == 1
    told = capsys.readouterr().out
    assert "A1 x: broke" in told and "A: 1 of 2 held" in told and "left out: A1 x" in told and "elsewhere: I26" in told
