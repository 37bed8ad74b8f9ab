"""Which replica a request goes to: the one of its session, or of its call, or the less busy of two."""

from __future__ import annotations

import random
from typing import Any

from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter

CALL = "rtc_"  # how the names of calls begin; the replica that holds the call is named next: rtc_REPLICA_...


def holder_of(session: str) -> str | None:
    """The replica that the name of a call tells; None for any other name."""
    return session.removeprefix(CALL).partition("_")[0] if session.startswith(CALL) else None


class SessionRouter(ConsistentHashRouter):  # type: ignore[misc]
    """Ray's router by consistent hashing of the header x-session-id: when a replica goes, only its own sessions move.

    Requests without it are given to the less busy of two, as Ray does by default; calls to whom they were begun with.
    """

    async def choose_replicas(self, candidate_replicas: list[Any], pending_request: Any = None) -> list[list[Any]]:
        """The replicas to try, ranks of equals, best first."""
        session = "" if pending_request is None else pending_request.metadata.session_id
        if not session:
            return [random.sample(candidate_replicas, min(2, len(candidate_replicas)))] if candidate_replicas else []
        holder = holder_of(session)
        held = [[one] for one in candidate_replicas if holder is not None and one.replica_id.unique_id == holder]
        ranked: list[list[Any]] = held or await super().choose_replicas(candidate_replicas, pending_request)
        return ranked
