"""The main job on real input: six questions to the embedded model, answered in text and in a voice at the same time.

``make demo`` runs it. It writes one WAV per answer and report.json, and ends with 1 if an answer is wrong or silent.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from descant.cli.player import WavWriter
from descant.errors import DescantError
from descant.pcm import HEADER_BYTES
from descant.types import Audio, AudioChunk, Finished, Image, Message, TextDelta, Video, assistant, user

if TYPE_CHECKING:
    import numpy as np

    from descant.omni import Omni

DEMO_MEDIA = Path(__file__).parents[1] / "assets" / "demo"
OUT = Path("out/demo")
DEMO_SEED = 1
AUDIBLE_RMS = 0.02  # of full scale, root mean square over the answer; speech is ten times that


@dataclass(frozen=True)
class Question:
    """A question, how it is shown to the person, and the one right answer. continues: asked after the one before."""

    name: str
    shown: str
    message: Message
    expected: str
    continues: bool = False


@dataclass(frozen=True)
class DemoResult:
    """One row of report.json. Times count from the moment the request was complete; rtf: time taken / time of sound."""

    question: str
    text: str
    expected: str
    wav: str
    first_text_s: float
    first_audio_s: float
    audio_s: float
    rtf: float


def questions() -> list[Question]:
    """One typed, one spoken about a picture, one about a sound, one about a video with its sound, one spoken in a room
    with noise and silence around it, and one that goes on from its answer."""

    def media(name: str) -> str:
        return str(DEMO_MEDIA / name)

    typed = "What is seven plus five?"
    heard = "What do you hear?"
    beep = "Which colour was shown when the beep sounded?"
    return [
        Question("typed", typed, user(typed), "Seven plus five is twelve."),
        Question(
            "spoken",
            '[stars.png] [question.wav: "How many shapes are there?"]',
            user(Image(media("stars.png")), Audio(media("question.wav"))),
            "I see three shapes.",
        ),
        Question("sound", f"[sound.wav] {heard}", user(Audio(media("sound.wav")), heard), "I hear a siren."),
        Question(
            "video",
            f"[video.mp4, with its sound] {beep}",
            user(Video(media("video.mp4"), use_audio=True), beep),
            "In second one it was purple.",
        ),
        Question(
            "room",
            '[room.wav: "How much is nine minus four?", with an echo, noise and silence around it]',
            user(Audio(media("room.wav"))),
            "Nine minus four is five.",
        ),
        Question("talk", "And plus three?", user("And plus three?"), "Five plus three is eight.", continues=True),
    ]


def plain(text: str) -> str:
    """Lower case letters and digits: what two equal answers must agree in."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def right(result: DemoResult) -> bool:
    return plain(result.text) == plain(result.expected)


def loudness(path: Path) -> float:
    """Root mean square of a 16-bit WAV file that ``WavWriter`` wrote, in parts of full scale."""
    import numpy as np

    pcm: np.ndarray = np.frombuffer(path.read_bytes()[HEADER_BYTES:], "<i2").astype(np.float64) / 32768
    return float(np.sqrt(np.mean(pcm**2))) if len(pcm) else 0.0


def answer_question(omni: Omni, question: Question, before: Sequence[Message], path: Path) -> DemoResult:
    """Ask after the turns ``before``, print the text as it comes, write the sound as it comes."""
    first_text = first_audio = 0.0
    wav: WavWriter | None = None
    text = ""
    total = 0.0
    print(f"\n  you   {question.shown}\n  nano  ", end="", flush=True)
    for event in omni.chat([*before, question.message], seed=DEMO_SEED):
        if isinstance(event, TextDelta):
            first_text = first_text or event.t
            print(event.text, end="", flush=True)
        elif isinstance(event, AudioChunk):
            first_audio = first_audio or event.t
            wav = wav or WavWriter(path, event.rate)
            wav.write(event.samples)
        elif isinstance(event, Finished):
            text = event.text
            total = event.t
    seconds = 0.0 if wav is None else wav.seconds
    print(f"\n        {path}, {seconds:.1f} s of speech; first sound after {first_audio:.2f} s")
    rtf = total / seconds if seconds else 0.0
    times = (round(value, 3) for value in (first_text, first_audio, seconds, rtf))
    return DemoResult(question.shown, text, question.expected, str(path), *times)


def results_table(results: list[tuple[Question, DemoResult]]) -> str:
    """The outcome, one line a question."""
    lines = [f"  {'question':10}{'answer':34}{'right':7}{'first text':>11}{'first sound':>13}{'sound':>8}{'rtf':>7}"]
    for question, r in results:
        times = f"{r.first_text_s:9.2f} s{r.first_audio_s:11.2f} s{r.audio_s:6.1f} s{r.rtf:7.2f}"
        lines.append(f"  {question.name:10}{r.text:34}{'yes' if right(r) else 'NO':7}{times}")
    return "\n".join(lines)


TRY_NEXT = """
What to try next:
  .venv/bin/descant chat                                     talk to it
  .venv/bin/descant ask "How many shapes?" --image FILE.png   one question, about your own picture
  .venv/bin/descant inspect nano                             what it is made of
  .venv/bin/descant serve                                    the page to talk to it, at http://127.0.0.1:8000
  make test                                                  everything that must hold
nano knows a small world on purpose; the README says which."""


def main() -> int:
    """Run the six questions; the exit code says whether all answers were right and audible."""
    from descant.omni import load

    print("loading nano, the embedded model")
    omni = load("nano")
    OUT.mkdir(parents=True, exist_ok=True)
    results: list[tuple[Question, DemoResult]] = []
    for place, question in enumerate(questions(), start=1):
        before = []
        if question.continues:
            asked, answered = results[-1]
            before = [asked.message, assistant(answered.text)]
        results.append((question, answer_question(omni, question, before, OUT / f"{place}-{question.name}.wav")))
    report = {"questions": [asdict(result) for _, result in results]}
    (OUT / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\n{results_table(results)}\n\n  report: {OUT / 'report.json'}")
    faults = [f"{q.name}: expected {r.expected!r}, got {r.text!r}" for q, r in results if not right(r)]
    faults += [
        f"{q.name}: no audible speech" for q, r in results if not r.audio_s or loudness(Path(r.wav)) < AUDIBLE_RMS
    ]
    for fault in faults:
        print(f"  WRONG  {fault}", file=sys.stderr)
    print(TRY_NEXT)
    return 1 if faults else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DescantError as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
