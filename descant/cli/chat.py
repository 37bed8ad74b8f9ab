"""An interactive talk: type, attach pictures and sounds, read and hear the answers as they come."""

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
from descant.types import Audio, Image, Message, Part, Text, Video, assistant

if TYPE_CHECKING:
    from descant.omni import Omni

HELP = """Type a question, or:
  /image FILE   /audio FILE   /video FILE    attach to the next question (an empty line sends it without text)
  /voice NAME   who speaks    /new           forget what was said
  /save FOLDER  the talk so far, as JSON     /quit   or Ctrl-D"""


@dataclass
class Talk:
    """What the commands of a talk may change."""

    omni: Omni
    out: Path | None  # folder for the sounds; None: text only
    play: bool
    voice: str | None
    seed: int | None
    max_tokens: int | None
    messages: list[Message] = field(default_factory=list)
    attached: list[Part] = field(default_factory=list)
    answers: int = 0

    def answer(self, text: str) -> None:
        """Answer one turn. What fails or is interrupted leaves the talk as it was before the turn."""
        parts = [*self.attached, *([Text(text)] if text else [])]
        turns = [*self.messages, Message("user", tuple(parts))]
        self.attached = []
        wav = self.out / f"answer-{self.answers + 1}.wav" if self.out is not None else None
        sinks = Sinks(text=sys.stdout, out=wav, play=self.play)
        events = self.omni.chat(
            turns, voice=self.voice, speech=wav is not None, max_tokens=self.max_tokens, seed=self.seed
        )
        finished = sinks.run(events)
        self.messages = [*turns, assistant(finished.text)]
        self.answers += 1
        if sinks.wav is not None:
            common.note(f"  {sinks.wav.path} ({sinks.wav.seconds:.1f} s)")


def attach_image(talk: Talk, name: str) -> None:
    talk.attached.append(Image(str(common.existing(Path(name)))))
    common.note(f"  {name} goes with the next question")


def attach_audio(talk: Talk, name: str) -> None:
    talk.attached.append(Audio(str(common.existing(Path(name)))))
    common.note(f"  {name} goes with the next question (an empty line sends it)")


def attach_video(talk: Talk, name: str) -> None:
    common.existing(Path(name))
    talk.attached += common.videos([name], sound=True)
    common.note(f"  {name} goes with the next question")


def change_voice(talk: Talk, name: str) -> None:
    names = talk.omni.voices
    if name not in names:
        raise OptionError(f"no voice {name!r}; this model has {', '.join(names) or 'none'}")
    talk.voice = name
    common.note(f"  {name} speaks from now on")


def save(talk: Talk, name: str) -> None:
    """Write the conversation in the form of the official model card, so that `descant trace` can read it."""
    folder = Path(name or "talk")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "talk.json"
    turns = [{"role": m.role, "content": [part_json(p) for p in m.content]} for m in talk.messages]
    path.write_text(json.dumps(turns, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    common.note(f"  {path}: {len(turns)} turns")


def part_json(part: Part) -> dict[str, object]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    kind = {Image: "image", Audio: "audio", Video: "video"}[type(part)]
    body: dict[str, object] = {"type": kind, kind: str(Path(str(part.source)).resolve())}
    return body | {"use_audio_in_video": True} if isinstance(part, Video) and part.use_audio else body


def forget(talk: Talk, _: str) -> None:
    talk.messages = []
    talk.attached = []
    common.note("  forgotten")


def show_help(_: Talk, __: str) -> None:
    common.note(HELP)


COMMANDS: dict[str, Callable[[Talk, str], None]] = {
    "/image": attach_image,
    "/audio": attach_audio,
    "/video": attach_video,
    "/voice": change_voice,
    "/save": save,
    "/new": forget,
    "/help": show_help,
}


def one_turn(talk: Talk, line: str) -> None:
    """A command or a question. What goes wrong is said, and the talk goes on."""
    word, _, rest = line.partition(" ")
    try:
        if word in COMMANDS:
            COMMANDS[word](talk, rest.strip())
        elif word.startswith("/"):
            raise OptionError(f"no command {word}; /help lists them")
        elif line or talk.attached:
            talk.answer(line)
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
    talk = Talk(omni, out if speech else None, player is not None, voice, seed, max_tokens)
    if voice is not None:
        change_voice(talk, voice)
    heard = f"sounds are played by {player} and kept in {out}/" if player else f"sounds are written to {out}/"
    common.note(f"{model} listens; {heard if speech else 'answers are text only'}. /help lists the commands.")
    while (line := read_line()) is not None:
        one_turn(talk, line.strip())


def read_line() -> str | None:
    """One line from the person; None at the end of input or at /quit."""
    with suppress(ImportError):  # not on every platform, and only a comfort
        import readline  # noqa: F401 - gives input() its line editing
    try:
        line = input("you> ")
    except EOFError:
        return None
    return None if line.strip() in ("/quit", "/exit") else line
