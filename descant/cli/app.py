"""The list of commands. Each lives in a file of its own kind; none imports a tensor library before it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from descant.cli import ask, bench, chat, evaluate, model, serve, trace

app = typer.Typer(
    name="descant",
    help="One model that hears, sees, reads, and answers in text and in a voice at the same time.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"descant {version('descant')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Print the version and leave.", callback=show_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
) -> None:
    """One model that hears, sees, reads, and answers in text and in a voice at the same time."""
    # both are dealt with before a command runs: --version by its callback, --debug by cli.errors.run


app.command("chat")(chat.chat)
app.command("ask")(ask.ask)
app.command("say")(ask.say)
app.command("transcribe")(ask.transcribe)
app.command("inspect")(model.inspect)
app.command("voices")(model.voices)
app.command("serve")(serve.serve)
app.command("trace")(trace.trace)
app.command("eval")(evaluate.evaluate)
app.command("bench")(bench.bench)
