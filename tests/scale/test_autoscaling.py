"""What Ray's autoscaler is told, without a cluster."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("ray", reason="the extra [ray] is not installed: nox -s scale")

from ray.serve.config import AutoscalingContext

from descant.scale.autoscaling import NAMES, decide


def context(figures: dict[str, dict[Any, float]], target: int, bounds: tuple[int, int] = (1, 9)) -> AutoscalingContext:
    given: dict[str, Any] = dict.fromkeys(
        (
            "deployment_id",
            "app_name",
            "raw_metrics",
            "last_scale_up_time",
            "last_scale_down_time",
            "current_time",
            "config",
        )
    )
    given |= {"deployment_name": "descant", "policy_state": {}, "running_replicas": [], "total_num_requests": 0.0}
    given |= {"current_num_replicas": target, "target_num_replicas": target, "total_queued_requests": 0.0}
    least, most = bounds
    given |= {"capacity_adjusted_min_replicas": least, "capacity_adjusted_max_replicas": most}
    return AutoscalingContext(aggregated_metrics=figures, **given)


def figures(*loads: tuple[float, float, float, float]) -> dict[str, dict[Any, float]]:
    return {name: {n: load[place] for n, load in enumerate(loads)} for place, name in enumerate(NAMES)}


def test_the_decision_keeps_its_bounds() -> None:
    full = (32.0, 10.0, 32.0, 0.0)
    idle = (0.0, 0.0, 32.0, 0.0)
    assert decide(context(figures(full, full), 2)) == (4, {})  # 84 asked for, 22.4 for each
    assert decide(context(figures(full, full), 2, (1, 3)))[0] == 3
    assert decide(context(figures(idle, idle), 2))[0] == 1
    assert decide(context(figures(idle, idle), 2, (2, 3)))[0] == 2
    assert decide(context({}, 3))[0] == 3


def test_a_replica_that_told_half_of_its_figures_has_told_none() -> None:
    half = figures((0.0, 0.0, 32.0, 0.0), (0.0, 0.0, 32.0, 0.0))
    del half["places"][1]
    assert decide(context(half, 2))[0] == 2
