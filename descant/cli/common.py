"""Shared by the commands: the options of a model, the messages of a question, and the one place that loads."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from descant.errors import OptionError
from descant.types import Audio, Dtype, Image, Latency, Message, Part, Text, Video

if TYPE_CHECKING:
    from descant.omni import Omni


WHICH = "nano, a folder, or a name such as Qwen/Qwen2.5-Omni-3B."
ModelOption = Annotated[str, typer.Option("--model", "-m", help=WHICH)]
ModelArgument = Annotated[str, typer.Argument(help=WHICH)]
VoiceOption = Annotated[str | None, typer.Option("--voice", help="Who speaks; `descant voices MODEL` lists them.")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Makes the whole answer, sound included, repeatable.")]
DtypeOption = Annotated[Dtype | None, typer.Option("--dtype", help="Of Thinker and Talker; else what the files hold.")]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps; else cpu.")]
LatencyOption = Annotated[Latency, typer.Option("--latency", help="How soon, against how well, it sounds.")]
MaxTokensOption = Annotated[int | None, typer.Option("--max-tokens", help="At most this many tokens of text.")]
EventsOption = Annotated[
    str | None, typer.Option("--events", metavar="FILE|-", help="JSON lines of what happens, when it happens.")
]


def note(line: str) -> None:
    """A remark for the person, not part of the answer: stderr."""
    print(line, file=sys.stderr, flush=True)


def open_model(
    name: str, *, dtype: Dtype | None = None, device: str | None = None, latency: Latency = "balanced"
) -> Omni:
    """Load a model, with a progress bar on a terminal. Tests put a stand-in here."""
    from descant.omni import load

    return load(name, dtype=dtype, device=device, latency=latency, progress=sys.stderr.isatty())


def videos(paths: Sequence[str], sound: bool) -> list[Video]:
    """Videos, each with its sound when it has any and ``sound`` allows it."""
    return [Video(path, use_audio=sound and has_sound(path)) for path in paths]


def has_sound(path: str) -> bool:
    """True if a video file carries sound. It comes in by the door like everything else; nothing is decoded."""
    from descant.inputs import container, door
    from descant.types import Budget

    payload = door.read(path, "video", Budget())
    with container.opened(payload.data, payload.format, "video") as file:
        return bool(file.streams.audio)


def speaks(omni: Omni, wanted: bool, voice: str | None) -> bool:
    """True to answer aloud: a model without a Talker answers in text, unless a voice was asked for by name."""
    if wanted and voice is None and not omni.speaks:
        note("this model has no voice; it answers in text")
        return False
    return wanted


def user_question(
    text: str | None, *, images: Sequence[str], audios: Sequence[str], videos: Sequence[Video]
) -> Message:
    """One user turn: pictures, sounds, videos, then the text."""
    parts: list[Part] = [*(Image(p) for p in images), *(Audio(p) for p in audios), *videos]
    if text:
        parts.append(Text(text))
    return Message("user", tuple(parts))


def check_question(text: str | None, files: Sequence[str]) -> None:
    """Refuse an empty question, or a file that is not there, before a model is loaded."""
    if not text and not files:
        raise OptionError('there is nothing to answer; type a question: descant ask "What is seven plus five?"')
    for name in files:
        existing(Path(name))


def existing(path: Path) -> Path:
    """A file that must be there, checked before a model is loaded."""
    if not path.is_file():
        raise OptionError(f"there is no file {path}; check the name")
    return path
