"""The commands of a talk in the terminal, each with what stands behind it on its line."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from descant.cli import common
from descant.cli.player import WavWriter, find_player, play_file
from descant.cli.remote import RemoteHome
from descant.cli.shell import ChatShell, next_free
from descant.errors import OptionError, shortened
from descant.files import is_there
from descant.tools import ToolCall, ToolResult
from descant.types import Audio, Image, Part, Text, Video

HELP = """Type a question, or:
  /image FILE  /audio FILE  /video FILE   attach to the next question
                                          (an empty line sends it)
  /voice [NAME]   who speaks; without a name, the list
  /retry          another answer to the last question
  /undo           take back the last question and its answer
  /play           hear the last answer again
  /seed N         what is drawn from now on, repeatably
  /new            forget what was said
  /save [FOLDER]  write the talk so far as JSON
  /quit /exit     leave; so does Ctrl-D. Ctrl-C stops an answer.
With a microphone (--mic), Enter on an empty line begins a spoken question."""


def file_named(name: str) -> Path:
    """A file that is there, as it is typed, or dropped on the terminal: with ~, quotes, escapes, as an address."""
    if not name:
        raise OptionError("name a file: /image FILE, /audio FILE or /video FILE")
    if name[0] in "'\"" or "\\" in name:
        with suppress(ValueError):  # a quote that does not end: as it is
            name = " ".join(shlex.split(name))
    if name.startswith("file://"):
        name = url2pathname(urlsplit(name).path)
    return common.existing(Path(name).expanduser())


def attach_image(shell: ChatShell, name: str) -> None:
    path = file_named(name)
    shell.attach(Image(str(path)), path.name)


def attach_audio(shell: ChatShell, name: str) -> None:
    path = file_named(name)
    shell.attach(Audio(str(path)), path.name)


def attach_video(shell: ChatShell, name: str) -> None:
    path = file_named(name)
    shell.attach(Video(str(path), use_audio=None), path.name)


def change_voice(shell: ChatShell, name: str) -> None:
    names = shell.omni.voices
    if not name:
        common.note(f"  {', '.join(names) or 'no voice is listed'}")
        return
    if name not in names and not (isinstance(shell.omni, RemoteHome) and not names):  # which may not list them
        raise OptionError(f"no voice {shortened(name)}; this model has {', '.join(names) or 'none'}")
    if not shell.options["speech"]:
        raise OptionError("answers are text only here; leave --no-speech out to hear a voice")
    shell.voice = name
    common.note(f"  {name} speaks from now on")


def save(shell: ChatShell, name: str) -> None:
    """Write the conversation in the form of the official model card, so that `descant trace` can read it."""
    folder = Path(name or "talk").expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "talk.json"
    if is_there(path):
        path = next_free(folder, "talk-{}.json", 2)
    turns = [{"role": m.role, "content": [part_json(p, folder) for p in m.content]} for m in shell.messages]
    path.write_text(json.dumps(turns, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    common.note(f"  {path}: {len(turns)} turns")


def part_json(part: Part, folder: Path) -> dict[str, object]:
    """A part by the file it came from; what was spoken becomes a file of the folder."""
    assert not isinstance(part, ToolCall | ToolResult)  # nobody gives this shell any tools
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    kind = {Image: "image", Audio: "audio", Video: "video"}[type(part)]
    source = spoken_file(part, folder) if isinstance(part, Audio) and part.rate is not None else Path(str(part.source))
    body: dict[str, object] = {"type": kind, kind: str(source.resolve())}
    return body | {"use_audio_in_video": part.use_audio} if isinstance(part, Video) else body


def spoken_file(sound: Audio, folder: Path) -> Path:
    """Write what was spoken into a file of its own."""
    assert sound.rate is not None and not isinstance(sound.source, str | bytes | Path)
    path = next_free(folder, "question-{}.wav")
    with WavWriter(path, sound.rate) as file:
        file.write(sound.source)
    return path


def retry(shell: ChatShell, _: str) -> None:
    shell.ask_again()


def undo(shell: ChatShell, _: str) -> None:
    shell.take_back()
    common.note("  the last question and its answer are forgotten" + ("" if shell.turns else "; nothing was said"))


def play_again(shell: ChatShell, _: str) -> None:
    """Play the last answer that has a sound."""
    sound = next((turn.sound for turn in reversed(shell.turns) if turn.sound is not None), None)
    if sound is None:
        raise OptionError("no answer has a sound yet")
    if shell.handset is not None and shell.handset.play_again(shell.live, sound):
        return
    if (name := find_player()) is None:
        raise OptionError(f"no player is installed; the sound is in {sound}")
    play_file(name, sound)


def change_seed(shell: ChatShell, text: str) -> None:
    if not text.isdecimal():
        raise OptionError(f"the seed is {shortened(text)}; expected a whole number, as in /seed 7")
    shell.reopen(int(text))
    common.note(f"  the next answer is drawn from seed {int(text)}")


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
    "/retry": retry,
    "/undo": undo,
    "/play": play_again,
    "/seed": change_seed,
    "/save": save,
    "/new": forget,
    "/help": show_help,
}
