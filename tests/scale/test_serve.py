"""Two replicas on this machine: sessions stay, an update breaks nothing, and who is killed leaves nobody waiting."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import websockets
import yaml

ray = pytest.importorskip("ray", reason="the extra [ray] is not installed: nox -s scale")

from ray.serve.schema import ServeDeploySchema  # noqa: E402

from descant.errors import OptionError  # noqa: E402
from descant.scale.deployment import serve_app  # noqa: E402
from tests.scale.cluster import KEY, OTHER_KEY, QUESTION, REPLICAS, SPOKEN, Cluster, Heard, replica_pids, started, talk  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]
FILE = Path(__file__).resolve().parents[2] / "docs" / "serve.yaml"
EXPLICIT_S = 2.0  # seconds from the death of a replica to the error that its clients read


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with started() as cluster:
        yield cluster


def test_the_file_that_serve_deploy_takes_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ServeDeploySchema.model_validate(yaml.safe_load(FILE.read_text(encoding="utf-8")))
    (application,) = given.applications
    (deployment,) = application.deployments
    assert application.import_path == "descant.scale.deployment:serve_app"
    monkeypatch.setenv("DESCANT_API_KEYS", json.dumps([KEY]))
    built = serve_app(application.args)
    assert built._bound_deployment.name == deployment.name
    assert deployment.autoscaling_config["policy"]["policy_function"] == "descant.scale.autoscaling:decide"


def test_without_a_key_there_is_no_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DESCANT_API_KEYS", raising=False)
    with pytest.raises(OptionError, match="DESCANT_API_KEYS"):
        serve_app({"model": "nano"})
    with pytest.raises(OptionError, match="settings"):
        serve_app({"api_keys": [KEY], "modl": "nano"})


def test_the_gate_is_in_every_replica(cluster: Cluster) -> None:
    for n in range(8):
        session = {"x-session-id": str(n)}
        assert httpx.get(f"{cluster.url}/v1/models", headers=session).status_code == 401
        foreign = httpx.get(f"{cluster.url}/v1/models", headers=session | {"host": "evil.example"})
        assert foreign.status_code == 403 and foreign.json()["error"]["code"] == "host_not_allowed"

    async def refused() -> int:
        with pytest.raises(websockets.InvalidStatus) as caught:
            async with websockets.connect(f"ws://127.0.0.1:{cluster.port}/v1/realtime"):
                pass
        return caught.value.response.status_code

    assert asyncio.run(refused()) == 401


def test_sessions_stay_with_their_replica(cluster: Cluster) -> None:
    async def run() -> None:
        names = [f"session {n}" for n in range(12)]
        answers = await asyncio.gather(*(cluster.ask(name, max_tokens=4) for name in names * 4))
        assert {answer.status_code for answer in answers} == {200}
        replicas = [answer.headers["x-descant-replica"] for answer in answers]
        assert replicas == replicas[: len(names)] * 4
        assert len(set(replicas)) == REPLICAS
        free = await asyncio.gather(*(cluster.ask(max_tokens=4) for _ in range(16)))
        assert len({answer.headers["x-descant-replica"] for answer in free}) == REPLICAS

    asyncio.run(run())


async def spoken_name(cluster: Cluster, session: str) -> tuple[str, str]:
    """(id of a spoken answer, the replica that gave it)."""
    answer = await cluster.ask(session, **SPOKEN)
    return answer.json()["choices"][0]["message"]["audio"]["id"], answer.headers["x-descant-replica"]


async def follow(cluster: Cluster, session: str, name: str) -> httpx.Response:
    """A turn that names a spoken answer."""
    messages = [QUESTION, {"role": "assistant", "audio": {"id": name}}, {"role": "user", "content": "thank you"}]
    return await cluster.ask(session, messages=messages, max_tokens=4)


def test_every_replica_knows_the_answers_that_the_others_spoke(cluster: Cluster) -> None:
    async def run() -> None:
        name, speaker = await spoken_name(cluster, "session 0")
        follows = await asyncio.gather(*(follow(cluster, f"session {n}", name) for n in range(12)))
        assert {answer.status_code for answer in follows} == {200}, [answer.text for answer in follows]
        assert {answer.headers["x-descant-replica"] for answer in follows} > {speaker}
        assert len({answer.json()["usage"]["prompt_tokens"] for answer in follows}) == 1
        unknown = await follow(cluster, "session 1", "audio_" + "0" * 24)
        assert unknown.status_code == 400 and unknown.json()["error"]["code"] == "audio_not_found"

    asyncio.run(run())


def test_responses_go_on_at_any_replica_and_for_their_own_key(cluster: Cluster) -> None:
    async def go_on(place: int, key: str, before: str | None) -> httpx.Response:
        body = {"input": "What is two plus two?", "max_output_tokens": 4, "seed": 1, "previous_response_id": before}
        async with cluster.client(f"session {place}", key) as client:
            return await client.post("/v1/responses", json=body)

    async def run() -> None:
        chain: list[str] = []
        prompts: list[int] = []
        replicas = set()
        for place in range(12):
            answer = await go_on(place, KEY, chain[-1] if chain else None)
            assert answer.status_code == 200, answer.text
            chain.append(answer.json()["id"])
            prompts.append(answer.json()["usage"]["input_tokens"])
            replicas.add(answer.headers["x-descant-replica"])
        assert len(replicas) == REPLICAS
        assert prompts == sorted(set(prompts))  # each turn has all before it
        for place in range(12):
            foreign = await go_on(place, OTHER_KEY, chain[-1])
            assert foreign.status_code == 404, foreign.text
        async with cluster.client("session 0") as client:
            assert (await client.delete(f"/v1/responses/{chain[3]}")).status_code == 200
        for place in range(12):
            assert (await go_on(place, KEY, chain[3])).status_code == 404
            async with cluster.client(f"session {place}") as client:
                assert (await client.get(f"/v1/responses/{chain[3]}")).status_code == 404
                assert (await client.get(f"/v1/responses/{chain[4]}")).json()["id"] == chain[4]
        last = await go_on(0, KEY, chain[-1])
        assert last.json()["usage"]["input_tokens"] > prompts[-1]  # what goes on from it has it still

    asyncio.run(run())


def test_a_ticket_is_good_anywhere_and_once(cluster: Cluster) -> None:
    async def use(ticket: str) -> int:
        url = f"ws://127.0.0.1:{cluster.port}/v1/realtime"
        try:
            async with websockets.connect(url, additional_headers={"authorization": f"Bearer {ticket}"}) as connection:
                assert json.loads(await connection.recv())["type"] == "session.created"
                return 101
        except websockets.InvalidStatus as refused:
            return refused.response.status_code

    async def run() -> None:
        for _ in range(4):
            async with cluster.client() as client:
                bought = await client.post("/v1/realtime/client_secrets", json={})
            ticket = bought.json()["value"]
            uses = await asyncio.gather(*(use(ticket) for _ in range(6)))
            assert sorted(uses) == [101] + [401] * 5

    asyncio.run(run())


def test_what_is_asked_of_a_call_reaches_the_replica_that_holds_it(cluster: Cluster) -> None:
    async def run() -> None:
        for name in [*await cluster.replicas()] * 4:
            async with cluster.client("session 0") as client:
                answer = await client.post(f"/v1/realtime/calls/rtc_{name}_0123/hangup")
            assert answer.json()["error"]["code"] == "call_not_found"
            assert answer.headers["x-descant-replica"] == name

    asyncio.run(run())


def test_who_leaves_is_not_answered_any_further(cluster: Cluster) -> None:
    async def leave(n: int) -> None:
        async with cluster.client(f"session {n % 12}") as client:
            body = {"messages": [QUESTION], "stream": True, **SPOKEN}
            async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                async for _ in answer.aiter_lines():
                    if n % 3:
                        break

    async def is_idle() -> bool:
        told = [answer.text for answer in (await cluster.replicas()).values()]
        return len(told) == REPLICAS and all(
            f"descant_{kind} 0.0" in t for t in told for kind in ("sessions", "waiting")
        )

    async def run() -> None:
        await asyncio.gather(*(leave(n) for n in range(48)))
        async with asyncio.timeout(20):
            while not await is_idle():
                pass

    asyncio.run(run())


def test_an_update_under_load_breaks_nothing(cluster: Cluster) -> None:
    heard: list[Heard] = []
    refused: list[str] = []

    async def load(updated: asyncio.Event) -> None:
        while not updated.is_set():
            heard.append(await cluster.stream())
            answer = await cluster.ask(max_tokens=4)
            refused.extend([answer.text] * (answer.status_code != 200))

    async def run() -> None:
        before = set(await cluster.replicas())
        name, _ = await spoken_name(cluster, "session 0")
        updated = asyncio.Event()
        async with cluster.socket() as one, cluster.socket() as other:
            loads = [asyncio.ensure_future(load(updated)) for _ in range(4)]
            deploying = asyncio.ensure_future(asyncio.to_thread(cluster.deploy, 301.0))
            while (after := set(await cluster.replicas())) & before or len(after) < REPLICAS:
                await asyncio.sleep(0.2)
            assert not deploying.done()  # it waits for the two that talk
            for connection in (one, other):  # to a replica that takes nothing new any more
                assert (await talk(connection))[-1] == "response.done"
        await deploying
        updated.set()
        await asyncio.gather(*loads)
        assert (await follow(cluster, "session 0", name)).status_code == 200  # spoken by one that is gone
        assert {one.replica for one in heard} >= after

    asyncio.run(run())
    broken = [one for one in heard if one.end != "data: [DONE]"] + refused
    print(f"rolling update: {len(heard)} streams and as many whole answers, {len(broken)} failed")
    assert not broken and len(heard) > 8


def test_the_streams_of_a_killed_replica_end_with_an_error_and_new_ones_go_elsewhere(cluster: Cluster) -> None:
    async def listen(ready: asyncio.Queue[None]) -> Heard:
        async with cluster.socket() as connection:
            replica = connection.response.headers["x-descant-replica"]
            ready.put_nowait(None)
            try:
                event = json.loads(await asyncio.wait_for(connection.recv(), 2 * EXPLICIT_S))
                close = await asyncio.wait_for(connection.recv(), EXPLICIT_S)
                return Heard(replica, f"{event} {close!r}")
            except TimeoutError:
                return Heard(replica, "still open")
            except websockets.ConnectionClosed as closed:
                return Heard(replica, f"{event['error']['code']} {closed.rcvd.code if closed.rcvd else None}")

    async def run() -> None:
        ready: asyncio.Queue[None] = asyncio.Queue()
        sockets = [asyncio.ensure_future(listen(ready)) for _ in range(8)]
        for _ in sockets:
            await ready.get()
        streams = [asyncio.ensure_future(cluster.stream(f"session {n}")) for n in range(16)]
        pids = replica_pids()
        await asyncio.sleep(0.3)
        killed = time.monotonic()
        os.kill(pids[0], signal.SIGKILL)
        later = [await cluster.stream(f"session {n}") for n in range(12)]
        ended = await asyncio.gather(*streams, *sockets)
        lost = [one for one in ended if one.end not in ("data: [DONE]", "still open")]
        assert len({one.replica for one in lost}) == 1 and len(lost) >= 2, ended
        assert not [
            one for one in ended if one not in lost and one.replica == lost[0].replica and one.end == "still open"
        ]
        for one in lost:
            assert "replica_lost" in one.end, one
        slowest = max(one.at for one in lost) - killed
        print(f"killed replica: {len(lost)} streams told, the last after {slowest:.2f} s")
        assert slowest < EXPLICIT_S
        assert {one.end for one in later} == {"data: [DONE]"}, later
        assert lost[0].replica not in {one.replica for one in later}
        async with asyncio.timeout(60):
            while len(await cluster.replicas()) < REPLICAS:
                pass
        print(f"two replicas again after {time.monotonic() - killed:.1f} s")

    asyncio.run(run())
