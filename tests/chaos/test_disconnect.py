"""The chaos run, short: nothing is left when everybody has gone."""

from tests.chaos.disconnect import run


def test_visitors_who_leave_at_any_moment_leave_nothing() -> None:
    left = run(80, seed=2)
    assert left.nothing, left
    assert 0 < left.remembered <= 1
