"""Spoken questions: made once by two free synthesisers (flite, espeak-ng), kept as one file of samples and its index.

What clip ``i`` says, and in which voice, is a pure function of (seed, i). Only training and evaluation need the
synthesisers; nothing at run time does. A folder of clips is resumable: a killed build goes on where it stopped.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np

from descant.errors import OptionError
from descant.train.loop import StageContext
from descant.train.nano import domain
from descant.train.nano.speech_data import read_mono
from descant.train.recipe import read_dataclass as build_options

QUESTION_RATE_HZ = 16000  # Hz, the rate of every clip
FLITE = ("slt", "rms", "kal16", "kal")
ESPEAK_ACCENTS = ("en-us", "en-gb", "en-gb-x-rp", "en-029", "en-us-nyc", "en-gb-x-gbclan")
ESPEAK_TIMBRES = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5")
UNHEARD = ("flite:awb", "espeak:en-gb-scotland+m3:150:50")  # never in training
SPOKEN_TASKS = (  # (task, share of the clips)
    ("chat", 0.19), ("plus", 0.18), ("minus", 0.15), ("opposite", 0.13), ("next", 0.12), ("day", 0.03),
    ("month", 0.03), ("colour", 0.03), ("shape", 0.03), ("count", 0.03), ("words", 0.08),
)  # fmt: skip


PROVENANCE = (
    {"generator": "flite", "licence": "BSD-style, Carnegie Mellon University", "voices": [*FLITE, "awb (tests only)"]},
    {"generator": "espeak-ng", "licence": "GPL-3.0 program; its output is free", "voices": [*ESPEAK_ACCENTS]},
)


@dataclass(frozen=True)
class SpokenQuestion:
    """One clip: its words, the right reply, and "engine:voice[:rate:pitch]"."""

    task: str
    text: str
    reply: str  # "" where the reply depends on a picture
    voice: str
    core: tuple[str | int, ...] = ()  # what is asked, the wording apart (`wording.Asked`)


@cache
def word_list() -> tuple[str, ...]:
    """The open vocabulary: frequent words, clean and plain."""
    return tuple(Path(__file__).with_name("words.txt").read_text().split())


def draw_voice(rng: random.Random) -> str:
    """A voice of training: one of four of flite, or one of many pseudo-speakers of espeak-ng."""
    if rng.random() < 0.5:
        return f"flite:{rng.choice(FLITE)}"
    accent = rng.choice(ESPEAK_ACCENTS)
    timbre = rng.choice(ESPEAK_TIMBRES)
    return f"espeak:{accent}+{timbre}:{rng.randrange(125, 190)}:{rng.randrange(30, 75)}"


def draw_text(task: str, rng: random.Random, split: domain.Split) -> tuple[str, str]:
    """(words, reply) of one clip."""
    if task == "words":
        return " ".join(rng.choice(word_list()) for _ in range(rng.randrange(2, 6))), ""
    if task in domain.IMAGE_TASKS:
        return domain.picture_question(task, rng), ""
    return domain.sample(task, rng, split)


def plan(count: int, seed: int, split: domain.Split, voices: Sequence[str] = ()) -> list[SpokenQuestion]:
    """The words of ``count`` clips. ``voices``: take turns among these, in place of drawing from those of training."""
    clips = []
    for i in range(count):
        rng = random.Random(f"questions/{seed}/{split}/{i}")
        task = rng.choices([t for t, _ in SPOKEN_TASKS], [w for _, w in SPOKEN_TASKS])[0]
        text, reply = draw_text(task, rng, split)
        voice = voices[i % len(voices)] if voices else draw_voice(rng)
        clips.append(SpokenQuestion(task, text, reply, voice))
    return clips


def trim_clip(samples: np.ndarray, margin_s: float = 0.06) -> np.ndarray:
    """Cut the silence around the speech, keeping a margin."""
    loud = np.flatnonzero(np.abs(samples) > 0.01)
    if len(loud) == 0:
        return samples
    margin = int(margin_s * QUESTION_RATE_HZ)
    return samples[max(0, loud[0] - margin) : loud[-1] + margin]


def synthesise(text: str, voice: str) -> np.ndarray:
    """Speak: float32 (W,) at RATE. Needs the Debian packages flite and espeak-ng."""
    engine, name, *rest = voice.split(":")
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "clip.wav"
        if engine == "flite":
            command = ["flite", "-voice", name, "-t", text, "-o", str(wav)]
        elif engine == "espeak":
            rate, pitch = rest
            command = ["espeak-ng", "-v", name, "-s", rate, "-p", pitch, "-w", str(wav), text]
        else:
            raise OptionError(
                f"unknown speech engine {engine!r} in voice {voice!r}; use flite:NAME or espeak:NAME:RATE:PITCH"
            )
        if shutil.which(command[0]) is None:
            raise OptionError(f"{command[0]} is not installed; on Debian type: sudo apt-get install flite espeak-ng")
        subprocess.run(command, check=True, capture_output=True)
        return trim_clip(read_mono(wav, QUESTION_RATE_HZ))


class Clips:
    """A folder of clips: ``samples.i16`` (one long memory map) and ``index.jsonl`` (offset, length, what is said)."""

    def __init__(self, folder: Path):
        self.folder = folder
        index = folder / "index.jsonl"
        if not index.exists():
            raise OptionError(f"no spoken questions in {folder}; make them with the data stage of the recipe")
        rows = [json.loads(line) for line in index.read_text().splitlines()]
        self.spans = [(row.pop("start"), row.pop("length")) for row in rows]
        self.spoken = [SpokenQuestion(**{**row, "core": tuple(row.get("core", ()))}) for row in rows]
        self._samples = np.memmap(folder / "samples.i16", dtype="<i2", mode="r")

    def __len__(self) -> int:
        return len(self.spoken)

    def __getitem__(self, i: int) -> np.ndarray:
        """Clip ``i`` as float32 (W,) at RATE."""
        start, length = self.spans[i]
        return np.asarray(self._samples[start : start + length], dtype=np.float32) / 32768


def build_questions(
    folder: Path, clips: Sequence[SpokenQuestion], say: Callable[[str, str], np.ndarray] | None = None
) -> Iterator[int]:
    """Make the clips that ``folder`` lacks; yields how many are there, after each. say: (text, voice) -> samples."""
    say = say or synthesise
    folder.mkdir(parents=True, exist_ok=True)
    samples_path = folder / "samples.i16"
    index_path = folder / "index.jsonl"
    done = index_path.read_text().splitlines(keepends=True) if index_path.exists() else []
    done = [line for line in done if line.endswith("\n")]  # a kill may have cut the last line
    end = sum(json.loads(done[-1])[k] for k in ("start", "length")) if done else 0
    samples_path.touch()
    with samples_path.open("r+b") as samples, index_path.open("w") as index:
        index.writelines(done)
        samples.truncate(2 * end)
        samples.seek(2 * end)
        for i in range(len(done), len(clips)):
            wave16 = np.clip(say(clips[i].text, clips[i].voice) * 32767, -32768, 32767).astype("<i2")
            samples.write(wave16.tobytes())
            samples.flush()
            index.write(json.dumps({"start": end, "length": len(wave16), **asdict(clips[i])}) + "\n")
            index.flush()
            end += len(wave16)
            yield i + 1


@dataclass(frozen=True)
class QuestionsOptions:
    """Numbers of clips: to learn from, to test in voices of training, to test in voices never heard."""

    train: int = 12000
    test: int = 500
    unheard: int = 300


def make_questions(context: StageContext) -> None:
    """The data stage: three folders of clips. What training hears and what it is tested on never share a question."""
    stage = context.stage
    options = build_options(QuestionsOptions, stage.options or {}, f"stages.{stage.name}.options")
    sets = {
        "test": plan(options.test, stage.seed + 1, "test"),
        "unheard": plan(options.unheard, stage.seed + 2, "test", UNHEARD),
        "train": plan(options.train, stage.seed, "train"),
    }
    seconds = {}
    for name, clips in sets.items():
        for done in build_questions(context.folder / name, clips):
            if done % 500 == 0 or done == len(clips):
                print(f"{stage.name}: {name} {done} of {len(clips)}", flush=True)
        seconds[name] = round(sum(length for _, length in Clips(context.folder / name).spans) / QUESTION_RATE_HZ)
    record = {"clips": {name: len(clips) for name, clips in sets.items()}, "seconds": seconds, "provenance": PROVENANCE}
    (context.folder / "final.json").write_text(json.dumps(record, indent=1))
