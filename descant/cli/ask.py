"""One question, one sentence to say, one recording to write down."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from descant.cli import common
from descant.cli.events import open_sinks
from descant.errors import OptionError

if TYPE_CHECKING:
    from descant.types import Finished

Files = list[str]


def ask(
    text: Annotated[str | None, typer.Argument(help="The question; may be left out when --audio asks it.")] = None,
    image: Annotated[Files | None, typer.Option("--image", metavar="FILE", help="A picture; repeatable.")] = None,
    audio: Annotated[Files | None, typer.Option("--audio", metavar="FILE", help="A sound; repeatable.")] = None,
    video: Annotated[Files | None, typer.Option("--video", metavar="FILE", help="A video; repeatable.")] = None,
    video_sound: Annotated[bool, typer.Option(help="Hear the sound of videos that have any.")] = True,
    model: common.ModelOption = "nano",
    voice: common.VoiceOption = None,
    speech: Annotated[bool, typer.Option("--speech/--no-speech", help="Answer aloud too, or in text only.")] = True,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where the sound goes; answer.wav if not said.")
    ] = None,
    events: common.EventsOption = None,
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
    common.check_question(text, [*(image or ()), *(audio or ()), *(video or ())])
    with open_sinks(out=wav, events=events) as sinks:
        omni = common.open_model(model, dtype=dtype, device=device, latency=latency)
        speech = common.speaks(omni, speech, voice)
        videos = common.videos(video or (), video_sound)
        asked = common.user_question(text, images=image or (), audios=audio or (), videos=videos)
        finished = sinks.run(omni.chat([asked], voice=voice, speech=speech, max_tokens=max_tokens, seed=seed))
    if sinks.wav is not None:
        report_sound(finished, sinks.wav.path, sinks.wav.seconds)


def report_sound(finished: Finished, path: Path, seconds: float) -> None:
    """One line about the sound, for the person."""
    common.note(f"sound: {path} ({seconds:.1f} s, made in {finished.t:.1f} s)")


def say(
    text: Annotated[str, typer.Argument(help="What to say.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The WAV file to write.")],
    model: common.ModelOption = "nano",
    voice: common.VoiceOption = None,
    events: common.EventsOption = None,
    seed: common.SeedOption = None,
    latency: common.LatencyOption = "balanced",
    dtype: common.DtypeOption = None,
    device: common.DeviceOption = None,
) -> None:
    """Say a text aloud, word for word."""
    with open_sinks(out=out, events=events, text=False) as sinks:
        omni = common.open_model(model, dtype=dtype, device=device, latency=latency)
        finished = sinks.run(omni.speak(text, voice=voice, seed=seed))
    if sinks.wav is not None:
        report_sound(finished, sinks.wav.path, sinks.wav.seconds)


def transcribe(
    file: Annotated[str, typer.Argument(help="A recording.")],
    model: common.ModelOption = "nano",
    dtype: common.DtypeOption = None,
    device: common.DeviceOption = None,
) -> None:
    """Write down what is said in a recording."""
    common.existing(Path(file))
    print(common.open_model(model, dtype=dtype, device=device).transcribe(file))
