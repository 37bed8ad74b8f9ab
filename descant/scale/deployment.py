"""The Ray Serve application: replicas of the server, one engine each (``descant.scale.deployment:serve_app``)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from ray import serve
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from descant.errors import OptionError
from descant.scale.kept import SharedTickets, shared_stores
from descant.scale.policy import Load
from descant.scale.proxy import REPLICA_HEADER
from descant.scale.routing import SessionRouter
from descant.server.app import begin, make_app
from descant.server.gate import KEY_PROTOCOL, TICKET_PATHS, Gate
from descant.server.settings import ServerSettings, read_settings
from descant.server.shares import share_salt

ONGOING_MOST = 1024  # of one replica: above the limits of its engine, which refuses by itself and says for how long
QUEUE_MOST = 128  # requests that a proxy holds back when every replica is full; then it refuses
HEALTH_EVERY_S = 2.0
DRAIN_LOOK_S = 0.5  # between two looks of a replica that is to go at whether its last answer has ended
NO_KEY = (
    "a cluster is reached from other machines: give a key, in the environment of every Ray node, "
    "DESCANT_API_KEYS=KEY (openssl rand -hex 16 makes one), or as api_keys of the application's args"
)


class Replica:
    """One replica. It is the application that ``descant serve`` hosts, with its gate, around an engine of its own; Ray
    takes the place of uvicorn, and what follow-up turns may name is shared."""

    def __init__(self, settings: ServerSettings):
        place = serve.get_replica_context()
        stores, self.tickets = shared_stores(place.app_name, place.replica_id.unique_id)
        share_salt(salt_of(settings.api_keys))
        self.gate = make_app(settings, stores=stores)
        self.counted = (0.0, 0.0)  # under-runs and answers, when the autoscaler looked last

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the application, its model loaded and warm. Ray asks for it before it sends anybody."""
        await begin(self.gate.state, None)
        return Hosted(self.gate, self.tickets)

    async def check_health(self) -> None:
        """Raise SessionError when the engine has failed: Ray then puts another replica in its place."""
        self.gate.state.omni.engine.check_open()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """The figures that ``autoscaling.decide`` reads."""
        engine = self.gate.state.omni.engine
        ledger, totals = engine.ledger(), self.gate.state.figures.totals()
        late, ended = (now - before for now, before in zip(totals, self.counted, strict=True))
        self.counted = totals
        load = Load(ledger.sessions, ledger.waiting, engine.limits.sessions, late / ended if ended else 0.0)
        return dict(vars(load))


class Hosted:
    """The application as one of several: its responses bear its name, a ticket that was bought at another is fetched
    before the gate looks, and calls, which Ray does not know of, end before it does."""

    def __init__(self, gate: Gate, tickets: SharedTickets):
        self.gate, self.tickets = gate, tickets
        self.own = (REPLICA_HEADER, gate.state.replica.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def tell(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start", "websocket.accept"):
                message = {**message, "headers": [*message.get("headers", ()), self.own]}
            await send(message)

        async def next_event() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown" and self.gate.state.calls:
                await asyncio.wait(list(self.gate.state.calls.values()))
            return message

        if scope["type"] == "lifespan":
            await self.gate(scope, next_event, send)
            return
        if scope["path"] in TICKET_PATHS:
            await self.tickets.fetch(ticket_in(scope))
        await self.gate(scope, receive, tell)


def ticket_in(scope: Scope) -> str:
    """The bearer's word in the header of a request, or in the subprotocol of a browser's socket."""
    header: bytes = dict(scope["headers"]).get(b"authorization", b"")
    named = [name.removeprefix(KEY_PROTOCOL) for name in scope.get("subprotocols", ()) if name.startswith(KEY_PROTOCOL)]
    return header.partition(b" ")[2].strip().decode("latin-1") or "".join(named[:1])


def salt_of(keys: Iterable[str]) -> bytes:
    """The salt by which all replicas name tenants alike: who has not all keys does not know it."""
    return hashlib.blake2s("\n".join(sorted(keys)).encode(), digest_size=16).digest()


def deployment_of(settings: ServerSettings) -> serve.Deployment:
    """The deployment, as many replicas as its options will say. Raises OptionError: without a key."""
    if not settings.api_keys:
        raise OptionError(NO_KEY)
    needs_gpu = settings.device is not None and settings.device.startswith("cuda")
    return serve.deployment(
        serve.ingress()(Replica),
        name="descant",
        ray_actor_options={"num_cpus": 1, "num_gpus": int(needs_gpu)},
        max_ongoing_requests=ONGOING_MOST,
        max_queued_requests=QUEUE_MOST,
        request_router_config={"request_router_class": SessionRouter},
        health_check_period_s=HEALTH_EVERY_S,
        graceful_shutdown_wait_loop_s=DRAIN_LOOK_S,
        graceful_shutdown_timeout_s=settings.session_s + settings.drain_s,  # no socket lives longer
    )


def serve_app(args: Mapping[str, Any]) -> serve.Application:
    """The application for ``serve run`` and ``serve deploy``, whose file may change its deployment. args: settings of
    the server, as in its TOML file. Raises OptionError."""
    settings = read_settings(None, args)
    return deployment_of(settings).bind(settings)
