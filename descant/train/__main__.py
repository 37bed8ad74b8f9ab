"""``python -m descant.train RECIPE --stage NAME --runs DIR``: trains one stage, or with ``--all`` the whole recipe."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from descant.errors import DescantError
from descant.train.recipe import read_recipe
from descant.train.stages import run_all, run_one


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m descant.train", description=__doc__)
    parser.add_argument("recipe", type=Path, help="a YAML file such as recipes/nano.yaml")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--stage", help="the stage to train, from wherever it stands")
    what.add_argument("--all", action="store_true", help="every stage that is not finished, in order")
    parser.add_argument("--runs", type=Path, default=None, help="folder of the runs (default: runs/<recipe name>)")
    parser.add_argument("--lanes", type=int, default=2, help="stages to train at the same time")
    parser.add_argument("--threads", type=int, default=1, help="threads of each stage")
    parser.add_argument("--stop-after", type=int, default=None, metavar="N", help="pause after N steps")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.set_flush_denormal(True)
    try:
        recipe = read_recipe(given.recipe)
        runs = given.runs or Path("runs") / recipe.name
        if given.all:
            run_all(given.recipe, runs, given.lanes, given.threads)
        else:
            run_one(recipe, given.stage, runs, given.stop_after)
    except DescantError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
