"""The stores of a server, shared by all replicas: what one of them told can be named at any other, and outlives it.

What is kept lies in one actor (``shelf.py``). Names are known there a moment after they were told.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import ray

from descant.omni import TENANT
from descant.scale.shelf import Key, Shelf
from descant.server.kept import KEPT_RESPONSE_S, KeptResponse, KeptResponses, bytes_of_message
from descant.server.realtime_session import RealtimeSession
from descant.server.state import KEPT_S, ServerStores, SpokenAnswers
from descant.server.tickets import PREFIX, Tickets
from descant.types import Message

log = logging.getLogger(__name__)
NAMESPACE = "descant"
RECORD_BYTES = 4096  # about what a response's record, or a ticket's session, takes beside its messages
PATIENCE_S = 2.0  # seconds to wait for the actor's word; without one, a name counts as unknown
PAUSES_S = (0.0, 0.1, 0.4)  # seconds before an unknown name is asked for, again: it may be on its way


class SharedShelf:
    """The actor, as a replica sees it."""

    def __init__(self, app: str):
        options = {"name": f"kept-{app}", "namespace": NAMESPACE, "lifetime": "detached", "max_restarts": -1}
        self.actor: Any = ray.remote(Shelf).options(num_cpus=0, get_if_exists=True, **options).remote()

    def ask(self, method: Any, key: Key) -> Any:
        """Return what a method of the actor says of a key; asked again if that is nothing. It blocks: for threads, not
        event loops."""
        for pause_s in PAUSES_S:
            time.sleep(pause_s)
            try:
                told = ray.get(method.remote(key), timeout=PATIENCE_S)
            except ray.exceptions.RayError as error:  # it is being started again, and has forgotten all
                log.warning("the store of the cluster does not answer: %s", type(error).__name__)
                return None
            if told:
                return told
        return None


class SharedAnswers(SpokenAnswers):
    """The spoken answers of all replicas: this one's are at hand, the others' are asked for."""

    def __init__(self, shelf: SharedShelf):
        super().__init__()
        self._shelf = shelf

    def keep(self, text: str) -> tuple[str, int]:
        name, until = super().keep(text)
        if text:
            self._share(name, text)
        return name, until

    def replace(self, name: str, text: str) -> None:
        super().replace(name, text)
        self._share(name, text)

    def text(self, name: str) -> str | None:
        own = super().text(name)
        if own:
            return own
        told: str | None = self._shelf.ask(self._shelf.actor.get, ("audio", TENANT.get(), name))
        return told

    def _share(self, name: str, text: str) -> None:
        self._shelf.actor.keep.remote(("audio", TENANT.get(), name), text, len(text), KEPT_S)


class SharedResponses(KeptResponses):
    """The responses of all replicas. Each is kept with what it alone added, and the name of the one before it."""

    def __init__(self, shelf: SharedShelf):
        super().__init__(most=0)
        self._shelf = shelf

    def keep(
        self, record: dict[str, Any], before: tuple[Message, ...], new: tuple[Message, ...], beside: int = 0
    ) -> None:
        earlier = record["previous_response_id"]
        size = sum(map(bytes_of_message, new)) + beside
        value = ray.cloudpickle.dumps(KeptResponse(record, new, size))  # bytes: the actor imports nothing for them
        link = None if earlier is None else key_of(earlier)
        self._shelf.actor.keep.remote(key_of(record["id"]), value, size + RECORD_BYTES, KEPT_RESPONSE_S, link)

    def get(self, name: str) -> KeptResponse:
        told: list[bytes] | None = self._shelf.ask(self._shelf.actor.get_chain, key_of(name))
        if not told:
            return super().get(name)  # which has none, and says so
        chain: list[KeptResponse] = [ray.cloudpickle.loads(each) for each in told]
        messages = tuple(message for each in chain for message in each.messages)
        return KeptResponse(chain[-1].record, messages, chain[-1].size)

    def remove(self, name: str) -> None:
        if not self._shelf.ask(self._shelf.actor.hide, key_of(name)):
            super().get(name)


class SharedTickets(Tickets):
    """Tickets that are good at any replica, and at one of them only: it fetches the ticket before its gate looks."""

    def __init__(self, shelf: SharedShelf):
        super().__init__()
        self._shelf = shelf

    def sell(self, session: RealtimeSession, seconds: float) -> str:
        value = super().sell(session, seconds)
        _, own = self.waiting.pop(value)
        self._shelf.actor.keep.remote(ticket_key(value), ray.cloudpickle.dumps(own), RECORD_BYTES, seconds)
        return value

    async def fetch(self, value: str) -> None:
        """Have a ticket here, and nowhere else any more, if there is one of this value."""
        if not value.startswith(PREFIX):
            return
        try:
            told: bytes | None = await self._shelf.actor.take.remote(ticket_key(value))
        except ray.exceptions.RayError as error:
            log.warning("the store of the cluster does not answer: %s", type(error).__name__)
            return
        if told is not None:
            self.waiting[value] = (time.monotonic() + PATIENCE_S, ray.cloudpickle.loads(told))


def key_of(response: str) -> Key:
    return "response", TENANT.get(), response


def ticket_key(value: str) -> Key:
    return "ticket", "", value


def shared_stores(app: str, replica: str) -> tuple[ServerStores, SharedTickets]:
    """The stores of a replica, and the tickets among them."""
    shelf = SharedShelf(app)
    tickets = SharedTickets(shelf)
    return ServerStores(SharedAnswers(shelf), SharedResponses(shelf), tickets, replica), tickets
