"""Shared by the commands: the options of a model, the messages of a question, and the one place that loads."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from descant.errors import OptionError, shortened
from descant.types import Audio, Dtype, Finished, Image, Latency, MediaKind, Message, Part, Text, Video

if TYPE_CHECKING:
    from descant.omni import Omni


STDIN = "-"
MEDIA_KINDS: tuple[MediaKind, ...] = ("image", "audio", "video")
WHICH = "nano, a folder, or a name such as Qwen/Qwen2.5-Omni-3B."
ModelOption = Annotated[str, typer.Option("--model", "-m", help=WHICH)]
ModelArgument = Annotated[str, typer.Argument(help=WHICH)]
VoiceOption = Annotated[str | None, typer.Option("--voice", help="Who speaks; `descant voices MODEL` lists them.")]
SeedOption = Annotated[
    int | None, typer.Option("--seed", min=0, help="Makes the whole answer, sound included, repeatable.")
]
DtypeOption = Annotated[Dtype | None, typer.Option("--dtype", help="Of Thinker and Talker; else what the files hold.")]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps; else cpu.")]
LatencyOption = Annotated[Latency, typer.Option("--latency", help="How soon, against how well, it sounds.")]
MaxTokensOption = Annotated[int | None, typer.Option("--max-tokens", min=1, help="At most this many tokens of text.")]
EventsOption = Annotated[
    str | None, typer.Option("--events", metavar="FILE|-", help="JSON lines of what happens, when it happens.")
]


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
PlayOption = Annotated[
    bool | None,
    typer.Option("--play/--no-play", help="Hear it at once (on a terminal, where a player is)."),
]
MAX_STDIN_BYTES = 128 << 20


def note(line: str) -> None:
    """A remark for the person, not part of the answer: stderr."""
    print(line, file=sys.stderr, flush=True)


def open_model(
    name: str, *, dtype: Dtype | None = None, device: str | None = None, latency: Latency = "balanced"
) -> Omni:
    """Load a model, with a progress bar on a terminal. Tests put a stand-in here."""
    from descant.omni import load

    return load(name, dtype=dtype, device=device, latency=latency, progress=sys.stderr.isatty())


def is_playing(wanted: bool | None) -> bool:
    """True to play the sound: when asked to, or on a terminal where a player is installed."""
    from descant.cli.player import FROM_FILE, PIPED, find_player

    if wanted and find_player() is None:
        raise OptionError(
            f"no player is installed; install one of {', '.join((*PIPED, *FROM_FILE))}, or leave --play out"
        )
    return sys.stderr.isatty() and find_player() is not None if wanted is None else wanted


def standard_input(what: str) -> bytes:
    """All of standard input, for an argument that is "-"."""
    if sys.stdin is None or sys.stdin.isatty():
        raise OptionError(f"- reads {what} from standard input, and nothing is piped there: write it in place of -")
    data = sys.stdin.buffer.read(MAX_STDIN_BYTES + 1)
    if len(data) > MAX_STDIN_BYTES:
        raise OptionError(f"standard input has over {MAX_STDIN_BYTES:,} bytes; give a file, or less")
    return data


def text_input(words: Sequence[str] | None, *, or_piped: bool) -> str | None:
    """The text of an argument, which may be "-" or several words. or_piped: without one, what is piped is the text."""
    text = " ".join(words or ())
    piped = or_piped and not text and sys.stdin is not None and not sys.stdin.isatty()
    if text != STDIN and not piped:
        return text or None
    try:
        return standard_input("a text").decode().strip() or None
    except UnicodeDecodeError:
        raise OptionError("standard input is no text (UTF-8); convert it, or give a file") from None


def check_voice(model: str, voice: str | None) -> None:
    """Refuse a voice that the model does not have, before its weights are read."""
    if voice is None:
        return
    from descant.weights.fetch import resolve
    from descant.weights.voices import read_voices

    names = list(read_voices(resolve(model)))
    if voice not in names:
        raise OptionError(f"unknown voice {shortened(voice)}; {model} has {', '.join(names) or 'none'}")


def speaks(omni: Omni, wanted: bool, voice: str | None) -> bool:
    """True to answer aloud: a model without a Talker answers in text, unless a voice was asked for by name."""
    if wanted and voice is None and not omni.speaks:
        note("this model has no voice; it answers in text")
        return False
    return wanted


@dataclass(frozen=True)
class Media:
    """The files of a question, checked."""

    images: list[Image] = field(default_factory=list)
    audios: list[Audio] = field(default_factory=list)
    videos: list[Video] = field(default_factory=list)

    @classmethod
    def read(cls, files: Mapping[str, Sequence[str]], *, video_sound: bool) -> Media:
        """Files by kind ("image", "audio", "video"); "-" is standard input, once. Refuses, before a model is loaded,
        what is not there, or not of its kind."""
        found: dict[str, list[str | bytes]] = {
            kind: [source_of(name) for name in names] for kind, names in files.items()
        }
        if sum(isinstance(source, bytes) for sources in found.values() for source in sources) > 1:
            raise OptionError("standard input can be one file only; name the others")
        check_media(found)
        return cls(
            [Image(source) for source in found.get("image", ())],
            [Audio(source) for source in found.get("audio", ())],
            [Video(source, use_audio=None if video_sound else False) for source in found.get("video", ())],
        )

    def question(self, text: str | None) -> Message:
        """One user turn: pictures, sounds, videos, then the text."""
        parts: list[Part] = [*self.images, *self.audios, *self.videos]
        if text:
            parts.append(Text(text))
        return Message("user", tuple(parts))


def source_of(name: str) -> str | bytes:
    """A file as it was named on the command line; "-" is what is piped."""
    return standard_input("a file") if name == STDIN else name


def check_media(files: Mapping[str, Sequence[str | bytes]]) -> None:
    """Refuse files that are not there, or not of their kind. Their whole content is looked at when the model is there.

    A decoder process is started meanwhile, where one will be needed.
    """
    if not any(files.values()):
        return
    from descant.inputs.decoder import CHILDREN
    from descant.inputs.door import check_kind

    for kind in MEDIA_KINDS:
        for source in files.get(kind, ()):
            check_kind(source, kind)
    CHILDREN.start()


def existing(path: Path) -> Path:
    """A file that must be there, checked before a model is loaded."""
    if not path.is_file():
        raise OptionError(f"there is no file {path}; check the name")
    return path


def note_cuts(finished: Finished) -> None:
    """Say when an answer ended by a limit."""
    if finished.usage.text_cut:
        note(f"cut: the text reached {finished.usage.text_tokens} tokens; give more with --max-tokens")
    if finished.usage.speech_cut:
        note(f"cut: the speech reached its limit of {finished.timings.audio_s:.0f} s, and the rest is not spoken")


def as_record(finished: Finished, sound: Path | None) -> str:
    """An answer as one line of JSON. sound: where its WAV is."""
    record = {"text": finished.text, "reason": finished.reason, "sound": None if sound is None else str(sound)}
    return json.dumps(record | {"usage": vars(finished.usage), "timings": vars(finished.timings)})
