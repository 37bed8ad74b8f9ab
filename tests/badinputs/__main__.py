"""``python -m tests.badinputs --url URL [--key KEY] [--model NAME] [--pid PID] [--slow] [--lenient] [--only A]``

Sends the catalogue to a server of OpenAI's protocol and says what held. Exit code 1 where anything did not. --lenient:
codes of errors may be any, as other servers have others.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.badinputs.case import Case
from tests.badinputs.catalogue import CASES
from tests.badinputs.doors import ELSEWHERE
from tests.badinputs.runner import Server, run


def report(results: list[tuple[Case, list[str]]], left_out: list[Case]) -> int:
    """Print what did not hold, and the counts by section; returns how many did not."""
    for case, found in results:
        if found:
            print(f"{case.id} {case.name}: {'; '.join(found)}")
    for section in sorted({case.id[0] for case, _ in results}):
        of_it = [found for case, found in results if case.id[0] == section]
        print(f"{section}: {sum(not found for found in of_it)} of {len(of_it)} held")
    for case in left_out:
        print(f"left out: {case.id} {case.name} (--slow sends it)")
    for name, where in ELSEWHERE.items():
        print(f"elsewhere: {name} {where}")
    failed = sum(bool(found) for _, found in results)
    print(f"{len(results) - failed} of {len(results)} held")
    return failed


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--key", default="")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--pid", type=int)
    parser.add_argument("--only", default="", help="sections or ids, as A or A5")
    parser.add_argument("--slow", action="store_true", help="also what takes seconds")
    parser.add_argument("--lenient", action="store_true")
    given = parser.parse_args()
    server = Server(given.url.rstrip("/"), given.key, given.model, given.pid, not given.lenient)
    wanted = [case for case in CASES if case.id.startswith(given.only)]
    begin = time.monotonic()
    failed = report(
        run(server, [case for case in wanted if given.slow or not case.slow]),
        [case for case in wanted if case.slow and not given.slow],
    )
    print(f"{time.monotonic() - begin:.0f} s")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
