"""A store of what follow-up turns may name, apart from the replicas: each knows it, and none takes it along.

It is one small actor of a Ray cluster, of the class ``Kept``. Texts of answers are a few hundred bytes.
"""

from __future__ import annotations

import time
from collections import OrderedDict

import ray

from descant.server.state import KEPT_S, SpokenAnswers

KEPT_MOST = 100_000  # texts
NAMESPACE = "descant"
PATIENCE_S = 2.0  # seconds to wait for the actor's word; without one, the name counts as unknown


class Kept:
    """Texts by name, each for an hour; the oldest go first when there are too many."""

    def __init__(self, most: int = KEPT_MOST, kept_s: float = KEPT_S):
        self.most, self.kept_s = most, kept_s
        self._texts: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def keep(self, name: str, text: str) -> None:
        """Keep a text; a name that is known gets it in place of its own."""
        self._texts[name] = time.monotonic() + self.kept_s, text
        while len(self._texts) > self.most:
            self._texts.popitem(last=False)

    def text(self, name: str) -> str | None:
        """The text of a name. None: it is unknown, or its hour is over."""
        until, text = self._texts.get(name, (0.0, ""))
        return text if until > time.monotonic() else None


class SharedAnswers(SpokenAnswers):
    """The spoken answers of all replicas: this one's are at hand, the others' are asked for."""

    def __init__(self, app: str):
        super().__init__()
        options = {"name": f"kept-{app}", "namespace": NAMESPACE, "lifetime": "detached", "max_restarts": -1}
        self._actor = ray.remote(Kept).options(num_cpus=0, get_if_exists=True, **options).remote()

    def keep(self, text: str) -> tuple[str, int]:
        """A new name for a text, known here at once and elsewhere a moment later."""
        name, until = super().keep(text)
        if text:
            self._actor.keep.remote(name, text)
        return name, until

    def replace(self, name: str, text: str) -> None:
        super().replace(name, text)
        self._actor.keep.remote(name, text)

    def text(self, name: str) -> str | None:
        """The text of a name, of whichever replica. Waits for the actor: not for an event loop."""
        own = super().text(name)
        if own is not None or not name.startswith("audio_"):
            return own
        try:
            told: str | None = ray.get(self._actor.text.remote(name), timeout=PATIENCE_S)
        except ray.exceptions.RayError:  # the actor is being restarted: it has forgotten all
            return None
        return told
