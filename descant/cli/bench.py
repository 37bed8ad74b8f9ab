"""The speed of descant on this machine, alone or beside another implementation; or of a server, under load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from descant.bench import OfficialShape, Peer, Shape
from descant.cli import common
from descant.cli.remote import KeyOption, UrlOption
from descant.errors import OptionError, SessionError
from descant.files import check_output

if TYPE_CHECKING:
    from descant.bench.load import LoadWish

SPOKEN = Path(__file__).parents[1] / "assets" / "demo" / "question.wav"
TYPED = "What is seven plus five?"


def bench(
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Only the rows that measure this one; a server's with --url.")
    ] = None,
    rows: Annotated[str | None, typer.Option("--rows", metavar="A,B", help="Only these rows.")] = None,
    compare: Annotated[Peer | None, typer.Option("--compare", help="A peer, measured in turn with descant.")] = None,
    out: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here.")] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Turns of each side; medians are shown.")] = 5,
    shapes: Annotated[
        OfficialShape | None, typer.Option("--shapes", help="Instead: an official shape, on one GPU, beside its goals.")
    ] = None,
    device: common.DeviceOption = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Else OMP_NUM_THREADS, or all cores.")] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    concurrency: Annotated[str, typer.Option("--concurrency", metavar="N,M", help="Clients at once.")] = "1,2,4,8",
    turns: Annotated[int, typer.Option("--turns", min=1, help="Requests of each client.")] = 8,
    routes: Annotated[str, typer.Option("--routes", help="chat, realtime, or both.")] = "chat,realtime",
    prompt: Annotated[str, typer.Option("--prompt", help="Asked over chat.")] = TYPED,
    spoken: Annotated[Path, typer.Option("--spoken", metavar="FILE", help="Said over realtime.")] = SPOKEN,
    speech: Annotated[bool, typer.Option("--speech/--no-speech", help="Sound too, or text only (chat).")] = True,
    max_tokens: common.MaxTokensOption = None,
) -> None:
    """Time first sound, whole answers and decoding, with random weights of fixed shapes: nothing is downloaded.

    With --url: load any OpenAI-compatible server by so many clients at once, and draw a picture beside --json.
    """
    check_figures(out)
    given = {"url": url, "rows": rows, "model": model, "compare": compare, "threads": threads, "device": device}
    check_together({name for name, value in given.items() if value is not None}, shapes)
    if shapes is not None:
        card_speed(shapes, device or "cuda", compare, out)
    elif url is None:
        own_speed(model, rows, compare, out, repeats, threads)
    else:
        from descant.bench.load import LoadWish, levels_of

        wish = LoadWish(model or "", levels_of(concurrency), turns, prompt, spoken, speech, max_tokens)
        server_speed(url, key, wish, "chat" if not speech and routes == "chat,realtime" else routes, out)


def check_figures(out: Path | None) -> None:
    """Find out before the work whether its figures can be written."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        check_output(out, "--json")


def check_together(given: set[str], shapes: OfficialShape | None) -> None:
    """Refuse options that mean nothing together."""
    if "device" in given and shapes is None:
        raise OptionError("--device is for --shapes; the other rows are measured on the CPU")
    if shapes is not None and given & {"url", "rows", "model", "threads"}:
        raise OptionError("--shapes measures one GPU, all rows; leave --url, --rows, --model and --threads out")
    if "url" in given and given & {"rows", "compare", "threads"}:
        raise OptionError("--rows, --compare and --threads are for this machine; leave them out beside --url")


def own_speed(
    model: str | None, rows: str | None, compare: Peer | None, out: Path | None, repeats: int, threads: int | None
) -> None:
    """Time this machine."""
    from rich.console import Console

    from descant.bench import harness, reference, report
    from descant.bench.rows import choose, measure

    shapes = get_args(Shape)
    if model is not None and model not in shapes:
        raise OptionError(f"--model {model}: known are {', '.join(shapes)}; another server's model needs --url")
    names = choose(None if rows is None else [name.strip() for name in rows.split(",")], model)
    if compare is not None:
        reference.check_installed()
    asked = harness.Bench(repeats, compare, say=common.note)
    with harness.threads(threads) as count:
        lines = measure(asked, names)
    Console().print(report.bench_table(lines, count))
    if out is not None:
        report.write_bench(out, report.record(lines, asked, count))
        common.note(f"figures: {out}")


def card_speed(shapes: OfficialShape, device: str, compare: Peer | None, out: Path | None) -> None:
    """Time an official shape with random weights on one device."""
    from descant.bench import card, card_lines, reference
    from descant.weights.checkpoint import as_device

    if compare is not None:
        reference.check_installed()
    place = as_device(device)
    lines = card.official_lines(shapes, place, compare, common.note)
    print("\n".join(card_lines.card_row(line) for line in lines))
    if out is not None:
        kept = {"shapes": shapes, "device": card_lines.device_name(place), "lines": [vars(line) for line in lines]}
        out.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
        common.note(f"figures: {out}")


def server_speed(url: str, key: str | None, wish: LoadWish, routes: str, out: Path | None) -> None:
    """Load a server. Raises SessionError at the end if any request failed."""
    from rich.console import Console

    from descant.bench.load import load_record, load_test, routes_of
    from descant.bench.load_report import load_table
    from descant.remote.server import RemoteServer

    names = routes_of(routes)
    common.existing(wish.spoken)
    if out is not None:
        check_output(out.with_suffix(".svg"), "the picture beside --json", outputs=[out])
    with RemoteServer(url, key) as server:
        wish = replace(wish, model=server.model(wish.model or None))
        levels = load_test(server, wish, names, common.note)
        kept = load_record(levels, server, wish)
    for route, figures in kept["routes"].items():
        Console().print(load_table(route, figures))
    if out is not None:
        write_load(kept, out)
    failed = [message for level in levels for message in level.faults]
    if failed:
        raise SessionError(f"{len(failed)} requests failed; the first: {failed[0]}")


def write_load(kept: Mapping[str, Any], out: Path) -> None:
    """Write the figures, and their picture beside them."""
    from descant.bench.load_report import load_picture

    picture = out.with_suffix(".svg")
    out.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    picture.write_text(load_picture(kept), encoding="utf-8")
    common.note(f"figures: {out}; picture: {picture}")
