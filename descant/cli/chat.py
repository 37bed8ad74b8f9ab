"""A live session in the terminal: type, attach pictures and sounds, read and hear the answers as they come."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from descant.cli import common
from descant.cli.chat_commands import COMMANDS, change_voice
from descant.cli.line_editor import line_editor, read_line
from descant.cli.player import find_player
from descant.cli.remote import KeyOption, RemoteHome, UrlOption, remote_home
from descant.cli.shell import ChatShell
from descant.errors import DescantError, OptionError, readable
from descant.types import AnswerOptions, Latency

if TYPE_CHECKING:
    from descant.omni import Omni


def one_turn(shell: ChatShell, line: str) -> None:
    """A command or a question. What goes wrong is said, and the talk goes on."""
    word, _, rest = line.partition(" ")
    word = {"help": "/help"}.get(line, word)
    try:
        if word in COMMANDS:
            COMMANDS[word](shell, rest.strip())
        elif word.startswith("/"):
            raise OptionError(f"no command {word}; /help lists them")
        elif line or shell.attached:
            shell.answer(line)
    except (DescantError, OSError, ValueError) as error:  # ValueError: a name with a NUL in it
        common.note(f"  {readable(str(error))}")
    except KeyboardInterrupt:  # stops this answer; at the prompt it ends the talk
        common.note("\n  stopped")


def chat(
    model: Annotated[str | None, typer.Option("--model", "-m", help=f"{common.WHICH} With --url, one of its.")] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    voice: common.VoiceOption = None,
    speech: Annotated[bool, typer.Option("--speech/--no-speech", help="Answer aloud too, or in text only.")] = True,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the sounds go.")] = Path("talk"),
    seed: common.SeedOption = None,
    latency: Annotated[Latency | None, typer.Option("--latency", help="How soon, against how well, it sounds.")] = None,
    max_tokens: common.MaxTokensOption = None,
    dtype: common.DtypeOption = None,
    device: common.DeviceOption = None,
) -> None:
    """Talk in the terminal: text appears as it comes, the sound is written, and played where a player is installed."""
    options: AnswerOptions = {"speech": speech, "max_tokens": max_tokens, "seed": seed}
    if url is not None:
        for option, value in (("--latency", latency), ("--dtype", dtype), ("--device", device)):
            if value is not None:
                raise OptionError(f"{option} is the server's to choose; leave it out beside --url")
        with remote_home(url, key, model) as home:
            talk_with(home, f"{home.name} at {url}", voice, out, options)
        return
    name = model or "nano"
    common.check_voice(name, voice)
    omni = common.open_model(name, dtype=dtype, device=device, latency=latency or "balanced")
    options["speech"] = common.speaks(omni, speech, voice)
    talk_with(omni, name, voice, out, options)


def talk_with(home: Omni | RemoteHome, name: str, voice: str | None, out: Path, options: AnswerOptions) -> None:
    """Talk until the person leaves. out: the folder for the sounds."""
    speech = options["speech"]
    player = find_player() if speech else None
    if speech:
        out.mkdir(parents=True, exist_ok=True)
    shell = ChatShell(home, out if speech else None, player is not None, None, options, home.session(**options))
    if voice is not None:
        change_voice(shell, voice)
    heard = f"sounds are played by {player} and kept in {out}/" if player else f"sounds are written to {out}/"
    common.note(f"{name} listens; {heard if speech else 'answers are text only'}. /help lists the commands.")
    with line_editor(shell):
        while (line := read_line()) is not None:
            one_turn(shell, line.strip())
    shell.session.close()
