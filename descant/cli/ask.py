"""One question, one text to say, recordings to write down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from descant.cli import common
from descant.cli.common import STDIN
from descant.cli.events import Sinks, open_sinks
from descant.errors import OptionError

if TYPE_CHECKING:
    from descant.types import Finished

Files = list[str]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="FILE|-", help="Where the sound (WAV) goes; answer.wav if not said.")
]


def ask(
    words: Annotated[
        Files | None, typer.Argument(metavar="TEXT", help="The question; - or a pipe: from standard input.")
    ] = None,
    image: Annotated[Files | None, typer.Option("--image", metavar="FILE", help="A picture; repeatable.")] = None,
    audio: Annotated[Files | None, typer.Option("--audio", metavar="FILE|-", help="A sound; repeatable.")] = None,
    video: Annotated[Files | None, typer.Option("--video", metavar="FILE", help="A video; repeatable.")] = None,
    video_sound: Annotated[bool, typer.Option(help="Hear the sound of videos that have any.")] = True,
    model: common.ModelOption = "nano",
    voice: common.VoiceOption = None,
    speech: Annotated[bool, typer.Option("--speech/--no-speech", help="Answer aloud too, or in text only.")] = True,
    out: OutOption = None,
    play: common.PlayOption = None,
    events: common.EventsOption = None,
    as_json: common.JsonOption = False,
    seed: common.SeedOption = None,
    latency: common.LatencyOption = "balanced",
    max_tokens: common.MaxTokensOption = None,
    dtype: common.DtypeOption = None,
    device: common.DeviceOption = None,
) -> None:
    """Ask one question, about pictures, sounds and videos if you like; the answer comes as text and as sound."""
    if out is not None and not speech:
        raise OptionError(f"--out {out} asks for sound and --no-speech for none; leave one of them out")
    wav = (out or Path("answer.wav")) if speech else None
    files = {"image": image or [], "audio": audio or [], "video": video or []}
    text = common.text_input(words, or_piped=not any(files.values()))
    if not text and not any(files.values()):
        raise OptionError('there is nothing to answer; type a question: descant ask "What is seven plus five?"')
    playing = speech and common.is_playing(play)
    every = [name for names in files.values() for name in names]
    with open_sinks(out=wav, events=events, inputs=every, play=playing, text=not as_json) as sinks:
        media = common.Media.read(files, video_sound=video_sound)
        common.check_voice(model, voice)
        omni = common.open_model(model, dtype=dtype, device=device, latency=latency)
        speech = common.speaks(omni, speech, voice)
        asked = media.question(text)
        finished = sinks.run(omni.chat([asked], voice=voice, speech=speech, max_tokens=max_tokens, seed=seed))
    report(finished, sinks, as_json=as_json)


def report(finished: Finished, sinks: Sinks, *, as_json: bool) -> None:
    """Tell the person, or the program, what came of it."""
    wav = sinks.wav
    if as_json:
        print(common.as_record(finished, None if wav is None else wav.path))
    elif wav is not None:
        common.note(f"sound: {wav.path} ({wav.seconds:.1f} s, made in {finished.t:.1f} s)")
    common.note_cuts(finished)


def say(
    words: Annotated[
        Files | None, typer.Argument(metavar="TEXT", help="What to say; - or a pipe: standard input.")
    ] = None,
    out: OutOption = None,
    model: common.ModelOption = "nano",
    voice: common.VoiceOption = None,
    play: common.PlayOption = None,
    events: common.EventsOption = None,
    as_json: common.JsonOption = False,
    seed: common.SeedOption = None,
    latency: common.LatencyOption = "balanced",
    dtype: common.DtypeOption = None,
    device: common.DeviceOption = None,
) -> None:
    """Say a text aloud, word for word; a long one passage by passage."""
    text = common.text_input(words, or_piped=True)
    if not text:
        raise OptionError('there is nothing to say; type a text: descant say "Hello."')
    playing = common.is_playing(play)
    with open_sinks(out=out or Path("answer.wav"), events=events, play=playing, text=False) as sinks:
        common.check_voice(model, voice)
        omni = common.open_model(model, dtype=dtype, device=device, latency=latency)
        finished = sinks.run(omni.speak(text, voice=voice, seed=seed))
    report(finished, sinks, as_json=as_json)


def transcribe(
    files: Annotated[Files, typer.Argument(metavar="FILE...", help="Recordings; - is standard input.")],
    model: common.ModelOption = "nano",
    max_tokens: common.MaxTokensOption = None,
    as_json: common.JsonOption = False,
    dtype: common.DtypeOption = None,
    device: common.DeviceOption = None,
) -> None:
    """Write down what is said in recordings, a line each."""
    sounds = common.Media.read({"audio": files}, video_sound=False).audios
    omni = common.open_model(model, dtype=dtype, device=device)
    for name, sound in zip(files, sounds, strict=True):
        written = omni.transcribe(sound, max_tokens=max_tokens)
        prefix = f"{name}: " if len(files) > 1 and name != STDIN else ""
        print(
            json.dumps({"file": name, "text": written, "reason": written.reason}) if as_json else f"{prefix}{written}"
        )
        if written.reason == "length":
            common.note(f"cut: the text of {name} reached its limit of tokens; give more with --max-tokens")
