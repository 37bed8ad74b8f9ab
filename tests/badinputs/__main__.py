"""``python -m tests.badinputs --url URL [--key KEY] [--model NAME]``: send the catalogue, and say what held.

After each case the server must still be ready, and a canary's answer the same to the letter. Exit code 1 where anything
did not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator

import httpx

from tests.badinputs.catalogue import ADDRESSES, ASK, BODIES, CHAT, FIELDS, media

LEAKS = ("Traceback", 'File "', "/home/", "/tmp/", "<_io", "site-packages")
JSON = {"content-type": "application/json"}


def cases(model: str) -> Iterator[tuple[str, bytes, tuple[int, ...]]]:
    """(name, body, statuses that are right) of every case, streamed and not."""
    ask = {**ASK, "model": model}
    for name, body in BODIES.items():
        yield f"body: {name}", body, (400, 413)
    for name, (fields, status) in FIELDS.items():
        for stream in (False, True):
            data = json.dumps({**ask, "stream": stream, **fields}).encode()
            yield f"field: {name}{', streamed' if stream else ''}", data, (status, 413)
    for address in ADDRESSES:
        for kind in ("image_url", "audio_url", "video_url"):
            yield f"{kind}: {address}", json.dumps({**ask, "messages": media(kind, address)}).encode(), (400, 403)


def canary(client: httpx.Client, model: str) -> str:
    """The answer that must not change."""
    answer = client.post(CHAT, json={**ASK, "model": model, "temperature": 0})
    return str(answer.json()["choices"][0]["message"]["content"])


def faults(client: httpx.Client, body: bytes, right: tuple[int, ...]) -> Iterator[str]:
    """Whatever is wrong with the answer to one case."""
    answer = client.post(CHAT, content=body, headers=JSON)
    if answer.status_code not in right:
        yield f"status {answer.status_code}"
    try:
        error = answer.json()["error"]
        if set(error) != {"message", "type", "param", "code"} or len(error["message"]) > 1000:
            yield "not the form of an error"
    except (ValueError, KeyError, TypeError):
        yield "no error in its body"
    yield from (f"leaks {leak}" for leak in LEAKS if leak in answer.text)


def run(client: httpx.Client, model: str) -> int:
    """Send every case; returns how many did not hold."""
    before = canary(client, model)
    failed = total = 0
    for name, body, right in cases(model):
        total += 1
        found = list(faults(client, body, right))
        if canary(client, model) != before:
            found.append("the canary's answer changed")
        if client.get("/ready").status_code != 200:
            found.append("the server is not ready any more")
        if found:
            failed += 1
            print(f"{name}: {'; '.join(found)}")
    print(f"{total - failed} of {total} held")
    return failed


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--key", default="")
    parser.add_argument("--model", default="nano")
    given = parser.parse_args()
    headers = {"authorization": f"Bearer {given.key}"} if given.key else {}
    with httpx.Client(base_url=given.url, headers=headers, timeout=60) as client:
        sys.exit(1 if run(client, given.model) else 0)


if __name__ == "__main__":
    main()
