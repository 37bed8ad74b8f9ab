"""What a model is made of, and who speaks in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from descant.cli import common


def folder_of(name: str) -> Path:
    """The folder of a model; a folder is taken as it is, so that one with nothing but config.json will do."""
    from descant.weights.fetch import resolve

    path = Path(name)
    return path if path.is_dir() else resolve(name)


def inspect(
    model: common.ModelArgument,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show every part of a model: parameters, dtype, bytes; and draw the system. config.json alone is enough."""
    from descant.cli.parts import parts
    from descant.cli.picture import draw
    from descant.weights.configfile import read_config

    folder = folder_of(model)
    config = read_config(folder)
    found = parts(config, folder)
    total, size = sum(p.parameters for p in found), sum(p.bytes for p in found)
    if as_json:
        body = {"model": model, "parts": [p.as_json() for p in found], "parameters": total, "bytes": size}
        print(json.dumps(body, indent=2))
        return
    print(f"{'part':20}{'':24}{'parameters':>16}  {'dtype':9}{'bytes':>16}")
    for p in found:
        print(f"{p.name:20}{p.what:24}{p.parameters:16,}  {p.dtype:9}{p.bytes:16,}")
    print(f"{'total':44}{total:16,}  {'':9}{size:16,}")
    print()
    print(draw(config))


def voices(model: common.ModelArgument = "nano") -> None:
    """List the voices of a model; the first is the default."""
    from descant.weights.voices import read_voices

    for name in read_voices(folder_of(model)):
        print(name)
