"""``descant serve``: the model behind the protocols that people's tools speak."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from descant.cli import common
from descant.errors import OptionError
from descant.types import Latency


def serve(
    model: Annotated[str | None, typer.Option("--model", "-m", help=common.WHICH)] = None,
    host: Annotated[str | None, typer.Option("--host", help="Where to listen; other machines only with a key.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="0: any that is free.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE.toml", help="All settings as a file.")
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option("--tls-certificate", metavar="FILE", help="For https.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="For https.")] = None,
    latency: Annotated[Latency | None, typer.Option("--latency", help="How soon, against how well.")] = None,
    dtype: common.DtypeOption = None,
    device: common.DeviceOption = None,
) -> None:
    """Serve a model to OpenAI's clients: text, pictures, sound and video in, text and speech out."""
    try:
        from descant.server import run
    except ImportError as error:
        raise OptionError(f"the server needs its extra ({error.name}): pip install 'descant[serve]'") from None
    from descant.server.logs import set_up_logs
    from descant.server.settings import read_settings

    given: dict[str, object] = {"model": model, "host": host, "port": port, "latency": latency, "dtype": dtype}
    given |= {"device": device, "tls_certificate": tls_certificate, "tls_key": tls_key}
    settings = read_settings(config, given)
    set_up_logs()
    common.note(f"{settings.model} on {settings.address} (it is ready when GET /ready says so)")
    common.note(f"the page: {settings.address}/")
    key = ' -H "Authorization: Bearer KEY"' if settings.api_keys else ""
    common.note(
        f"try: curl {settings.address}/v1/chat/completions{key} -H 'Content-Type: application/json' "
        """-d '{"messages": [{"role": "user", "content": "What is seven plus five?"}]}'"""
    )
    run.run_server(settings)
