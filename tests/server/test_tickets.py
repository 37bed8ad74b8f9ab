"""Tickets: bought with a key, good for one talk, for a while."""

from __future__ import annotations

import json
import time

import httpx
import openai
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from descant.server.realtime_session import RealtimeSession
from descant.server.tickets import MOST_TICKETS, Tickets
from tests.server.conftest import KEY, Running

PATH = "/v1/realtime/client_secrets"


def test_a_ticket_opens_one_talk_with_its_session(server: Running) -> None:
    """As OpenAI's client buys it; the talk has the session that was bought."""
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY)
    bought = client.realtime.client_secrets.create(session={"type": "realtime", "instructions": "be kind"})
    assert bought.value.startswith("ek_") and 0 < bought.expires_at - time.time() <= 61
    url = server.url.replace("http", "ws") + "/v1/realtime"
    protocols = ["realtime", f"openai-insecure-api-key.{bought.value}"]
    with connect(url, subprotocols=protocols) as socket:  # type: ignore[arg-type]
        assert json.loads(socket.recv())["session"]["instructions"] == "be kind"
    with pytest.raises(InvalidStatus) as refused:
        connect(url, additional_headers={"authorization": f"Bearer {bought.value}"})
    assert refused.value.response.status_code == 401


def test_a_ticket_opens_nothing_else_and_buys_no_other(server: Running, client: httpx.Client) -> None:
    value = client.post(PATH, json={}).json()["value"]
    for path in ("/v1/models", PATH):
        answer = httpx.request("GET" if "models" in path else "POST", server.url + path,
                               headers={"authorization": f"Bearer {value}"})  # fmt: skip
        assert answer.status_code == 401
    assert httpx.post(server.url + PATH, json={}).status_code == 401


@pytest.mark.parametrize(
    "body", [[], {"session": 5}, {"session": {"type": "x"}}, {"expires_after": {"seconds": 1}}, {"expires_after": 5}]
)
def test_a_wrong_wish_is_refused(client: httpx.Client, body: object) -> None:
    assert client.post(PATH, json=body).status_code == 400


def test_tickets_are_used_once_grow_old_and_are_not_hoarded() -> None:
    tickets, session = Tickets(), RealtimeSession()
    value = tickets.sell(session, 60)
    assert tickets.use(value) is session and tickets.use(value) is None and tickets.use("ek_x") is None
    assert tickets.use(tickets.sell(session, 0)) is None
    first = tickets.sell(session, 60)
    for _ in range(MOST_TICKETS):
        tickets.sell(session, 60)
    assert tickets.use(first) is None and len(tickets.waiting) == MOST_TICKETS
