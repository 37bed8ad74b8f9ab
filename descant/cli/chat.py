"""A live session in the terminal: type, attach pictures and sounds, read and hear the answers as they come."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit
from urllib.request import url2pathname

import typer

from descant.cli import common
from descant.cli.events import Sinks
from descant.cli.player import find_player
from descant.cli.remote import KeyOption, RemoteHome, UrlOption, remote_home
from descant.errors import DescantError, OptionError, readable, shortened
from descant.files import is_there
from descant.tools import ToolCall, ToolResult
from descant.types import AnswerOptions, Audio, Image, Latency, Message, Part, Text, Video, assistant

if TYPE_CHECKING:
    from descant.omni import LiveSession, Omni
    from descant.remote.talk import RemoteTalk

HELP = """Type a question, or:
  /image FILE  /audio FILE  /video FILE   attach to the next question
                                          (an empty line sends it)
  /voice [NAME]   who speaks; without a name, the list
  /new            forget what was said
  /save [FOLDER]  write the talk so far as JSON
  /quit /exit     leave; so does Ctrl-D. Ctrl-C stops an answer."""
LEAVE = ("/quit", "/exit", "quit", "exit")
MAX_LINE_CHARACTERS = 1 << 20
HISTORY_LINES = 1000


@dataclass
class ChatShell:
    """One conversation in the terminal: a live session, and what the commands may change.

    messages: what was asked and answered, for ``/save``; attached: what goes with the next question.
    """

    omni: Omni | RemoteHome
    out: Path | None  # folder for the sounds; None: text only
    play: bool
    voice: str | None
    options: AnswerOptions
    session: LiveSession | RemoteTalk
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
        wav = None if self.out is None else next_free(self.out, "answer-{}.wav", self.answers + 1)
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
        elif self.out is not None and isinstance(self.omni, RemoteHome):
            common.note("  the server sent no sound; --no-speech asks for none")
        common.note_cuts(finished)

    def forget(self) -> None:
        """Begin another conversation."""
        self.session.close()
        self.session = self.omni.session(**self.options)
        self.messages = []
        self.attached = []


def next_free(folder: Path, pattern: str, number: int = 1) -> Path:
    """The first of folder/pattern with a number from ``number`` on that is not there yet: nothing is overwritten."""
    return next(path for n in count(number) if not is_there(path := folder / pattern.format(n)))


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
    turns = [{"role": m.role, "content": [part_json(p) for p in m.content]} for m in shell.messages]
    path.write_text(json.dumps(turns, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    common.note(f"  {path}: {len(turns)} turns")


def part_json(part: Part) -> dict[str, object]:
    assert not isinstance(part, ToolCall | ToolResult)  # nobody gives this shell any tools
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    kind = {Image: "image", Audio: "audio", Video: "video"}[type(part)]
    body: dict[str, object] = {"type": kind, kind: str(Path(str(part.source)).resolve())}
    return body | {"use_audio_in_video": part.use_audio} if isinstance(part, Video) else body


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


def read_line() -> str | None:
    """One line from the person, or from what is piped; None at the end of input or at /quit."""
    if sys.stdin is None:
        return None
    if sys.stdin.isatty():
        try:
            line = input("you> ")
        except EOFError:
            return None
    else:
        line = sys.stdin.readline(MAX_LINE_CHARACTERS)
        if not line:
            return None
        if len(line) == MAX_LINE_CHARACTERS:
            raise OptionError(f"a line of over {MAX_LINE_CHARACTERS:,} characters was piped; send shorter ones")
    return None if line.strip() in LEAVE else line


@contextmanager
def line_editor(shell: ChatShell) -> Iterator[None]:
    """Line editing, completion of commands, files and voices, and a history that is kept from one talk to the next."""
    try:
        import readline
    except ImportError:  # not on every platform, and only a comfort
        yield
        return
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "descant"
    history = state / "chat_history"
    if sys.stdin is None or not sys.stdin.isatty():
        yield
        return
    readline.set_completer(lambda _, n: next(islice(completions(shell, readline.get_line_buffer()), n, None), None))
    readline.set_completer_delims(" ")
    readline.parse_and_bind("tab: complete")
    with suppress(OSError):
        readline.read_history_file(history)
    try:
        yield
    finally:
        with suppress(OSError):
            state.mkdir(parents=True, exist_ok=True, mode=0o700)
            readline.set_history_length(HISTORY_LINES)
            readline.write_history_file(history)


def completions(shell: ChatShell, line: str) -> Iterator[str]:
    """The words that the last one of a line may become: commands, voices, files."""
    word, space, rest = line.partition(" ")
    if not space:
        yield from (f"{name} " for name in COMMANDS if name.startswith(word))
    elif word == "/voice":
        yield from (name for name in shell.omni.voices if name.startswith(rest))
    elif word in ("/image", "/audio", "/video", "/save"):
        path = Path(rest or ".").expanduser()
        folder, begin = (path, "") if rest.endswith("/") or not rest else (path.parent, path.name)
        with suppress(OSError):
            for found in sorted(folder.iterdir()):
                if found.name.startswith(begin):
                    yield f"{found}/" if found.is_dir() else str(found)
