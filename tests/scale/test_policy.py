"""Laws of the number of replicas."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from descant.scale.policy import FULL_SHARE, UNDERRUNS_PER_ANSWER, Load, replicas_wanted

PLACES = 32
loads = st.lists(
    st.builds(
        Load,
        answering=st.integers(0, PLACES).map(float),
        waiting=st.integers(0, 64).map(float),
        places=st.just(float(PLACES)),
        underruns=st.sampled_from([0.0, UNDERRUNS_PER_ANSWER, 0.5]),
    ),
    min_size=1,
    max_size=12,
)


@given(loads)
def test_what_is_asked_for_fits_with_room_to_spare_and_with_one_less_it_would_not(told: list[Load]) -> None:
    told = [replace(load, underruns=0.0) for load in told]
    wanted = replicas_wanted(told, len(told))
    asked = sum(load.answering + load.waiting for load in told)
    assert wanted >= 1
    assert asked <= wanted * FULL_SHARE * PLACES + 1e-9
    assert wanted == 1 or asked > (wanted - 1) * FULL_SHARE * PLACES
    spread = [Load(asked / wanted, 0.0, PLACES, 0.0)] * wanted
    assert replicas_wanted(spread, wanted) == wanted  # it comes to rest


@given(loads, st.integers(0, 11), st.integers(1, 64))
def test_more_work_never_means_fewer_replicas(told: list[Load], place: int, more: int) -> None:
    place %= len(told)
    busier = [replace(load, waiting=load.waiting + more * (n == place)) for n, load in enumerate(told)]
    later = [replace(load, underruns=1.0) if n == place else load for n, load in enumerate(told)]
    wanted = replicas_wanted(told, len(told))
    assert replicas_wanted(busier, len(told)) >= wanted
    assert replicas_wanted(later, len(told)) >= wanted


@given(loads, st.integers(1, 24))
def test_none_is_given_up_while_a_listener_hears_gaps_or_a_replica_has_not_told(told: list[Load], current: int) -> None:
    if len(told) < current or any(load.underruns > UNDERRUNS_PER_ANSWER for load in told):
        assert replicas_wanted(told, current) >= current


def test_an_engine_that_is_late_counts_as_full() -> None:
    late = [Load(4, 0, PLACES, 0.5)] * 2
    assert replicas_wanted([replace(load, underruns=0.0) for load in late], 2) == 1
    assert replicas_wanted(late, 2) == 3


def test_without_figures_all_stay() -> None:
    assert replicas_wanted([], 7) == 7
    assert replicas_wanted([Load(0, 0, 0, 0)], 1) == 1
