"""Requests by the server's own OpenAPI schema, fitting and not: ``python -m tests.fuzz.schema --n 5000``.

schemathesis makes them. No answer may be a 5xx, and every refusal has the form of an error. Prints what was tried.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from typing import Any

import hypothesis
import schemathesis
from hypothesis import HealthCheck
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.config import GenerationConfig

from tests.chaos.server import tiny_server
from tests.server.conftest import KEY

LONGEST_S = 60  # seconds of one answer
CHEAP = {"max_tokens": 2, "max_completion_tokens": 2, "max_output_tokens": 2, "n": 1}
SPOKEN_CHARACTERS = 40


def cheaper(body: object) -> object:
    """The same request, answered sooner: long answers find no other fault."""
    if not isinstance(body, dict):
        return body
    cheap = {key: least for key, least in CHEAP.items() if type(body.get(key)) is int and body[key] > 0}
    body = {**body, **cheap}
    if isinstance(body.get("input"), str):
        body["input"] = body["input"][:SPOKEN_CHARACTERS]
    return body


def explore(
    operation: Any, count: int, seed: int, headers: dict[str, str], statuses: Counter[int], faults: list[str]
) -> None:
    """Ask one route ``count`` times."""

    @hypothesis.seed(seed)
    @hypothesis.settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @hypothesis.given(st.data())
    def ask(data: st.DataObject) -> None:
        mode = data.draw(st.sampled_from([GenerationMode.POSITIVE, GenerationMode.NEGATIVE]))
        case = data.draw(operation.as_strategy(generation_mode=mode))
        case.body = cheaper(case.body)
        answer = case.call(headers={**(case.headers or {}), **headers}, timeout=LONGEST_S)
        statuses[answer.status_code] += 1
        if answer.status_code >= 500 and answer.status_code != 503:
            faults.append(f"{case.method} {case.path}: {answer.status_code} for {str(case.body)[:300]}")
        elif answer.status_code >= 400 and "html" not in answer.text and '"error"' not in answer.text:
            faults.append(f"{case.method} {case.path}: {answer.status_code} without an error: {answer.text[:200]}")

    ask()


def run(count: int, seed: int = 0) -> tuple[Counter[int], list[str]]:
    """(answers by status, faults) of so many requests, shared among the routes."""
    server = next(running := tiny_server())
    headers = {"authorization": f"Bearer {KEY}"}
    statuses: Counter[int] = Counter()
    faults: list[str] = []
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json", headers=headers)
    schema.config.generation = GenerationConfig(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
    operations = [result.ok() for result in schema.get_all_operations()]
    for operation in operations:
        share = count // len(operations) if operation.body else 10
        explore(operation, max(2, share), seed, headers, statuses, faults)
    if not server.idle():
        faults.append(f"still lent out: {server.omni.engine.ledger()}")
    running.close()
    return statuses, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    statuses, faults = run(given.n, given.seed)
    print("\n".join(sorted(set(faults))))
    print(f"schema: tried={statuses.total()} failures={len(faults)} statuses={dict(sorted(statuses.items()))}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
