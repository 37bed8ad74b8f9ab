"""The parts of a model, and who speaks in it."""

from __future__ import annotations

import json
import re
from typing import Annotated

import typer

from descant.cli import common
from descant.errors import OptionError

CARDS = {f"{size}GB": size * 2**30 for size in (8, 16, 24, 48, 80, 141)}


def inspect(
    model: common.ModelArgument = "nano",
    as_json: common.JsonOption = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="What fits on a GPU: weights, sessions, what waits on the host.")
    ] = False,
    device_memory: Annotated[
        str | None, typer.Option("--device-memory", metavar="SIZE", help="Of the GPU, as 24GB; else six usual sizes.")
    ] = None,
) -> None:
    """Show every part of a model: parameters, dtype, bytes; and draw the system. config.json alone is enough."""
    from descant.cli import inspect as look
    from descant.weights.fetch import resolve

    if device_memory is not None and not plan:
        raise OptionError(f"--device-memory {device_memory} is for --plan; write both")
    sizes = CARDS if device_memory is None else {device_memory: memory_size(device_memory)}
    found = look.inspect_folder(resolve(model))
    if plan:
        from descant.plan import make_plan, plan_json, plan_table

        weights = {part.name: part.nbytes for part in found.parts}
        plans = {name: make_plan(found.config, weights, size) for name, size in sizes.items()}
        made = {name: plan_json(one) for name, one in plans.items()}
        print(json.dumps(made, indent=2) if as_json else plan_table(plans))
    elif as_json:
        print(json.dumps(look.to_json(found), indent=2))
    else:
        print(f"{look.parts_table(found)}\n\n{look.draw_model(found)}")


def memory_size(size: str) -> int:
    """ "24GB" in bytes. A card's GB are GiB: one of 80 GB has nearly 80 * 2**30 bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*G(?:i?B)?", size, re.IGNORECASE)
    if match is None or not 0 < float(match[1]) < 10_000:
        raise OptionError(f"--device-memory {size} is no size; write it as 24GB")
    return int(float(match[1]) * 2**30)


def voices(model: common.ModelArgument = "nano", as_json: common.JsonOption = False) -> None:
    """List the voices of a model; the first is the default."""
    from descant.weights.fetch import resolve
    from descant.weights.voices import read_voices

    names = list(read_voices(resolve(model)))
    if not names:
        raise OptionError(f"{model} has no voices: it answers in text only")
    print(json.dumps(names) if as_json else "\n".join(names))
