"""The policy in the words of Ray Serve's autoscaler; docs/serve.yaml names ``decide``."""

from __future__ import annotations

from typing import Any

from ray.serve.config import AutoscalingContext

from descant.scale.policy import Load, replicas_wanted

NAMES = ("answering", "waiting", "places", "underruns")  # the figures of a replica's record_autoscaling_stats


def decide(context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
    """The number of replicas, within the bounds of the deployment; no state is kept from one decision to the next."""
    told = context.aggregated_metrics or {}
    replicas = set.intersection(*(set(told.get(name, {})) for name in NAMES))
    loads = [Load(**{name: told[name][replica] for name in NAMES}) for replica in replicas]
    wanted = replicas_wanted(loads, context.target_num_replicas)
    least, most = context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
    return max(least, min(most, wanted)), {}
