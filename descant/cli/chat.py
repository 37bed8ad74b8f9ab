"""A live session in the terminal: type, attach pictures and sounds, read and hear the answers as they come."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from descant.cli import common
from descant.cli.events import Sinks
from descant.cli.player import find_player
from descant.errors import DescantError, OptionError
from descant.types import AnswerOptions, Audio, Image, Message, Part, Text, Video, assistant

if TYPE_CHECKING:
    from descant.omni import LiveSession, Omni

HELP = """Type a question, or:
  /image FILE   /audio FILE   /video FILE    attach to the next question (an empty line sends it)
  /voice NAME   who speaks    /new           forget what was said
  /save FOLDER  the talk so far, as JSON     /quit   or Ctrl-D"""


@dataclass
class ChatShell:
    """One conversation in the terminal: a live session, and what the commands may change.

    messages: what was asked and answered, for ``/save``; attached: what goes with the next question.
    """

    omni: Omni
    out: Path | None  # folder for the sounds; None: text only
    play: bool
    voice: str | None
    options: AnswerOptions
    session: LiveSession
    messages: list[Message] = field(default_factory=list)
    attached: list[Part] = field(default_factory=list)
    answers: int = 0

    def attach(self, part: Part, name: str) -> None:
        """Add a medium to the next question; it is read while the question is typed."""
        self.session.add(part)
        self.attached.append(part)
        common.note(f"  {name} goes with the next question (an empty line sends it)")

    def answer(self, text: str) -> None:
        """Answer one turn. An answer that is stopped keeps what it said so far."""
        parts = [*self.attached, *([Text(text)] if text else [])]
        self.attached = []
        if text:
            self.session.add(text)
        wav = self.out / f"answer-{self.answers + 1}.wav" if self.out is not None else None
        sinks = Sinks(text=sys.stdout, out=wav, play=self.play)
        try:
            finished = sinks.run(self.session.respond(voice=self.voice))
        except KeyboardInterrupt:
            self.session.cancel()
            raise
        self.messages += [Message("user", tuple(parts)), assistant(finished.text)]
        self.answers += 1
        if sinks.wav is not None:
            common.note(f"  {sinks.wav.path} ({sinks.wav.seconds:.1f} s)")

    def forget(self) -> None:
        """Begin another conversation."""
        self.session.close()
        self.session = self.omni.session(**self.options)
        self.messages = []
        self.attached = []


def attach_image(shell: ChatShell, name: str) -> None:
    shell.attach(Image(str(common.existing(Path(name)))), name)


def attach_audio(shell: ChatShell, name: str) -> None:
    shell.attach(Audio(str(common.existing(Path(name)))), name)


def attach_video(shell: ChatShell, name: str) -> None:
    common.existing(Path(name))
    for video in common.videos([name], sound=True):
        shell.attach(video, name)


def change_voice(shell: ChatShell, name: str) -> None:
    names = shell.omni.voices
    if name not in names:
        raise OptionError(f"no voice {name!r}; this model has {', '.join(names) or 'none'}")
    shell.voice = name
    common.note(f"  {name} speaks from now on")


def save(shell: ChatShell, name: str) -> None:
    """Write the conversation in the form of the official model card, so that `descant trace` can read it."""
    folder = Path(name or "talk")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "talk.json"
    turns = [{"role": m.role, "content": [part_json(p) for p in m.content]} for m in shell.messages]
    path.write_text(json.dumps(turns, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    common.note(f"  {path}: {len(turns)} turns")


def part_json(part: Part) -> dict[str, object]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    kind = {Image: "image", Audio: "audio", Video: "video"}[type(part)]
    body: dict[str, object] = {"type": kind, kind: str(Path(str(part.source)).resolve())}
    return body | {"use_audio_in_video": True} if isinstance(part, Video) and part.use_audio else body


def forget(shell: ChatShell, _: str) -> None:
    shell.forget()
    common.note("  forgotten")


def show_help(_: ChatShell, __: str) -> None:
    common.note(HELP)


COMMANDS: dict[str, Callable[[ChatShell, str], None]] = {
    "/image": attach_image,
    "/audio": attach_audio,
    "/video": attach_video,
    "/voice": change_voice,
    "/save": save,
    "/new": forget,
    "/help": show_help,
}


def one_turn(shell: ChatShell, line: str) -> None:
    """A command or a question. What goes wrong is said, and the talk goes on."""
    word, _, rest = line.partition(" ")
    try:
        if word in COMMANDS:
            COMMANDS[word](shell, rest.strip())
        elif word.startswith("/"):
            raise OptionError(f"no command {word}; /help lists them")
        elif line or shell.attached:
            shell.answer(line)
    except (DescantError, OSError) as error:
        common.note(f"  {error}")
    except KeyboardInterrupt:  # stops this answer; at the prompt it ends the talk
        common.note("\n  stopped")


def chat(
    model: common.ModelOption = "nano",
    voice: common.VoiceOption = None,
    speech: Annotated[bool, typer.Option("--speech/--no-speech", help="Answer aloud too, or in text only.")] = True,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the sounds go.")] = Path("talk"),
    seed: common.SeedOption = None,
    latency: common.LatencyOption = "balanced",
    max_tokens: common.MaxTokensOption = None,
    dtype: common.DtypeOption = None,
    device: common.DeviceOption = None,
) -> None:
    """Talk in the terminal: text appears as it comes, the sound is written, and played where a player is installed."""
    omni = common.open_model(model, dtype=dtype, device=device, latency=latency)
    speech = common.speaks(omni, speech, voice)
    player = find_player() if speech else None
    if speech:
        out.mkdir(parents=True, exist_ok=True)
    options: AnswerOptions = {"speech": speech, "max_tokens": max_tokens, "seed": seed}
    session = omni.session(**options)
    shell = ChatShell(omni, out if speech else None, player is not None, None, options, session)
    if voice is not None:
        change_voice(shell, voice)
    heard = f"sounds are played by {player} and kept in {out}/" if player else f"sounds are written to {out}/"
    common.note(f"{model} listens; {heard if speech else 'answers are text only'}. /help lists the commands.")
    while (line := read_line()) is not None:
        one_turn(shell, line.strip())
    shell.session.close()


def read_line() -> str | None:
    """One line from the person; None at the end of input or at /quit."""
    with suppress(ImportError):  # not on every platform, and only a comfort
        import readline  # noqa: F401 - gives input() its line editing
    try:
        line = input("you> ")
    except EOFError:
        return None
    return None if line.strip() in ("/quit", "/exit") else line
