"""The chaos run, short: nothing is left when everybody has gone."""

from tests.chaos import drains, server
from tests.chaos.disconnect import run


def test_visitors_who_leave_at_any_moment_leave_nothing() -> None:
    left = run(80, seed=2)
    assert left.nothing, left
    assert 0 < left.remembered <= 1


def test_clients_who_leave_a_server_at_any_moment_leave_nothing() -> None:
    left = server.run(40, seed=3)
    assert left.nothing, left


def test_no_stream_is_dropped_when_a_server_is_told_to_stop() -> None:
    drained = drains.run(1, 4)
    assert (drained.complete, drained.dropped, drained.stuck, drained.answered) == (4, 0, 0, 0)
