"""A live session in the terminal: type, attach pictures and sounds, read and hear the answers as they come."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from descant.cli import common
from descant.cli.chat_commands import COMMANDS, change_voice
from descant.cli.line_editor import line_editor, read_line
from descant.cli.player import find_player
from descant.cli.remote import KeyOption, RemoteHome, UrlOption, remote_home
from descant.cli.shell import ChatShell, MicMode
from descant.errors import DescantError, OptionError, readable
from descant.types import AnswerOptions, Audio, Latency

if TYPE_CHECKING:
    from descant.cli.handset import Handset
    from descant.omni import Omni


def one_turn(shell: ChatShell, line: str | Audio) -> None:
    """A command, or a question that was typed or spoken. What goes wrong is said, and the talk goes on."""
    try:
        if isinstance(line, Audio):
            shell.answer("", line)
        elif line:
            typed_line(shell, line)
        elif shell.handset is not None and shell.handset.pushes:
            shell.speak(shell.handset)
        elif shell.attached:
            shell.answer("")
    except (DescantError, OSError, ValueError) as error:  # ValueError: a name with a NUL in it
        common.note(f"  {readable(str(error))}")
    except KeyboardInterrupt:  # stops this answer; at the prompt it ends the talk
        common.note("\n  stopped")


def typed_line(shell: ChatShell, line: str) -> None:
    """A command or a question. Raises OptionError."""
    word, _, rest = line.partition(" ")
    word = {"help": "/help"}.get(line, word)
    if word in COMMANDS:
        COMMANDS[word](shell, rest.strip())
    elif word.startswith("/"):
        raise OptionError(f"no command {word}; /help lists them")
    else:
        shell.answer(line)


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
    mic: Annotated[
        MicMode | None, typer.Option("--mic", help="Speak: Enter begins and ends it (push), or freely.")
    ] = None,
) -> None:
    """Talk in the terminal: text appears as it comes, the sound is written, and played where a player is installed.
    With the extra [mic] it is spoken to, and can be interrupted."""
    options: AnswerOptions = {"speech": speech, "max_tokens": max_tokens, "seed": seed}
    if url is not None:
        for option, value in (("--latency", latency), ("--dtype", dtype), ("--device", device)):
            if value is not None:
                raise OptionError(f"{option} is the server's to choose; leave it out beside --url")
        if mic is not None:
            raise OptionError("--mic speaks to a model of this machine; the page of descant serve speaks to a server's")
        with remote_home(url, key, model) as home:
            talk_with(home, f"{home.name} at {url}", voice, out, options)
        return
    name = model or "nano"
    common.check_voice(name, voice)
    omni = common.open_model(name, dtype=dtype, device=device, latency=latency or "balanced")
    options["speech"] = common.speaks(omni, speech, voice)
    handset = handset_of_terminal(mic, speech=options["speech"])
    try:
        talk_with(omni, name, voice, out, options, handset)
    finally:
        if handset is not None:
            handset.close()


def handset_of_terminal(mic: MicMode | None, *, speech: bool) -> Handset | None:
    """Microphone and loudspeaker for who sits at a terminal; None: there is only typing."""
    if sys.stdin is None or not (sys.stdin.isatty() and sys.stdout.isatty()):
        if mic not in (None, "off"):
            common.note("  there is no terminal here, so nobody to speak; questions are read from standard input")
        return None
    from descant.cli.handset import open_handset

    return open_handset(mic, speech=speech)


def talk_with(
    home: Omni | RemoteHome,
    name: str,
    voice: str | None,
    out: Path,
    options: AnswerOptions,
    handset: Handset | None = None,
) -> None:
    """Talk until the person leaves. out: the folder for the sounds."""
    speech = options["speech"]
    player = find_player() if speech else None
    if speech:
        out.mkdir(parents=True, exist_ok=True)
    shell = ChatShell(home, out if speech else None, player is not None, None, options, home.session(**options))
    shell.handset = handset
    if voice is not None:
        change_voice(shell, voice)
    player = player if handset is None else "sounddevice"
    heard = f"sounds are played by {player} and kept in {out}/" if player else f"sounds are written to {out}/"
    common.note(f"{name} listens; {heard if speech else 'answers are text only'}. /help lists the commands.")
    if handset is not None and handset.hint:
        common.note(handset.hint)
    with line_editor(shell):
        while (line := read_line() if handset is None else handset.next_line(shell.live)) is not None:
            one_turn(shell, line if isinstance(line, Audio) else line.strip())
    shell.session.close()
