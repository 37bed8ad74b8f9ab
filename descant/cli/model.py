"""The parts of a model, and who speaks in it."""

from __future__ import annotations

import json

from descant.cli import common
from descant.errors import OptionError


def inspect(
    model: common.ModelArgument = "nano",
    as_json: common.JsonOption = False,
) -> None:
    """Show every part of a model: parameters, dtype, bytes; and draw the system. config.json alone is enough."""
    from descant.cli import inspect as look
    from descant.weights.fetch import resolve

    found = look.inspect_folder(resolve(model))
    if as_json:
        print(json.dumps(look.to_json(found), indent=2))
    else:
        print(f"{look.parts_table(found)}\n\n{look.draw_model(found)}")


def voices(model: common.ModelArgument = "nano", as_json: common.JsonOption = False) -> None:
    """List the voices of a model; the first is the default."""
    from descant.weights.fetch import resolve
    from descant.weights.voices import read_voices

    names = list(read_voices(resolve(model)))
    if not names:
        raise OptionError(f"{model} has no voices: it answers in text only")
    print(json.dumps(names) if as_json else "\n".join(names))
