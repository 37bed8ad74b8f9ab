"""Speech to learn from: sentences spoken by a teacher voice, kept as memory-mapped arrays with free phone labels.

A corpus folder holds ``audio.i16`` (24 kHz), ``mel.f16`` (100 frames/s, normalised), ``phones.u8`` (one label a frame),
``index.jsonl`` (one line an utterance) and ``provenance.json``. Utterances are padded to whole blocks of 24 frames, so
that any crop can start on a block boundary of the DiT. Writing resumes after a kill: the index names what is complete.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import wave
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import soxr
import torch

from descant.config import OUTPUT_RATE_HZ
from descant.errors import ConfigError, OptionError
from descant.train.loop import StageContext
from descant.train.mel import HOP_SAMPLES, normalised_mel
from descant.train.nano.sentences import SpeechLine, speech_lines
from descant.train.nano.tones import Tones
from descant.train.recipe import read_dataclass

BLOCK_FRAMES = 24  # mel frames: the DiT's block of 240 ms
LEAD_S = 0.06  # silence kept before the first phone
TAIL_S = 0.12  # silence kept after the last phone
PAUSE = "pau"
RAM_DISK = Path("/dev/shm")  # where the many small files of the teacher need no disk
_PHONES = (
    "pau aa ae ah ao aw ax axr ay b ch d dh eh el em en er ey f g hh hv ih iy jh k l m n ng ow oy p r s sh t th uh uw "
    "v w y z zh"
)
FLITE_PHONES = tuple(_PHONES.split())


@dataclass(frozen=True)
class Utterance:
    """A spoken line. start: first mel frame in the arrays; frames: a multiple of 24; spoken: without the padding."""

    text: str
    kind: str
    held_out: bool
    start: int
    frames: int
    spoken: int


class Teacher(Protocol):
    """A voice that speaks on demand. ``phones`` names its labels; ``provenance`` says where it comes from."""

    phones: tuple[str, ...]

    def speak(self, text: str) -> tuple[np.ndarray, list[tuple[str, float]]]:
        """Text -> samples (W,) float32 at 24 kHz, and (phone, end in seconds) in order."""
        ...

    def provenance(self) -> dict[str, str]: ...


def read_mono(path: Path, rate: int) -> np.ndarray:
    """A 16-bit mono file of a synthesiser -> samples (W,) float32 at ``rate`` Hz."""
    with wave.open(str(path)) as file:
        own = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").astype(np.float32) / 32768
    return samples if own == rate else soxr.resample(samples, own, rate)


class Flite:
    """The flite synthesiser as the teacher: a build-time tool, called once a sentence."""

    phones = FLITE_PHONES

    def __init__(self, voice: str = "slt"):
        self.voice = voice
        found = shutil.which("flite")
        if found is None:
            raise OptionError(
                "the teacher voice needs the program 'flite': install it with `apt install flite` (Debian)"
            )
        self.program = found

    def speak(self, text: str) -> tuple[np.ndarray, list[tuple[str, float]]]:
        with tempfile.TemporaryDirectory(dir=RAM_DISK if RAM_DISK.is_dir() else None) as folder:
            path = str(Path(folder) / "line.wav")
            command = [self.program, "-voice", self.voice, "-psdur", "-o", path, "-t", text + " "]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            samples = read_mono(Path(path), OUTPUT_RATE_HZ)
        phones = [(name, float(end)) for name, end in re.findall(r"(\w+):([\d.]+)", printed)]
        return samples, phones

    def provenance(self) -> dict[str, str]:
        asked = subprocess.run([self.program, "--version"], check=False, capture_output=True, text=True)
        version = re.search(r"version: (\S+)", asked.stdout + asked.stderr)
        return {
            "generator": "flite",
            "version": version.group(1) if version else "unknown",
            "voice": f"cmu_us_{self.voice}",
            "licence": "BSD-style, Carnegie Mellon University",
        }


def trim(samples: np.ndarray, phones: list[tuple[str, float]]) -> tuple[np.ndarray, list[tuple[str, float]]]:
    """Cuts the silence at both ends to LEAD_S and TAIL_S, so that a voice answers at once and stops in time."""
    first = phones[0][1] if phones[0][0] == PAUSE else 0.0
    last = phones[-2][1] if phones[-1][0] == PAUSE and len(phones) > 1 else phones[-1][1]
    begin = max(0.0, first - LEAD_S)
    end = min(len(samples) / OUTPUT_RATE_HZ, last + TAIL_S)
    cut = samples[round(begin * OUTPUT_RATE_HZ) : round(end * OUTPUT_RATE_HZ)]
    return cut, [(name, stop - begin) for name, stop in phones]


def frame_labels(phones: list[tuple[str, float]], names: tuple[str, ...], frames: int) -> np.ndarray:
    """One label for each frame (its centre's phone): (frames,) uint8; after the last phone comes silence (label 0)."""
    centres = (np.arange(frames) + 0.5) * HOP_SAMPLES / OUTPUT_RATE_HZ
    which = np.searchsorted([end for _, end in phones], centres, side="right")
    ids = np.array([names.index(name) for name, _ in phones] + [0], dtype=np.uint8)
    return ids[np.minimum(which, len(phones))]


@dataclass(frozen=True)
class MelScale:
    """The making of nano's mel, and its normalisation."""

    bins: int
    mean: float
    std: float
    high_hz: float = 8000.0


def write_corpus(folder: Path, lines: Sequence[SpeechLine], teacher: Teacher, scale: MelScale) -> None:
    """Speaks every line once, in order; a second call goes on where the first was stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / "index.jsonl"
    done = _complete_rows(index)
    frames = done[-1].start + done[-1].frames if done else 0
    widths = {"audio.i16": HOP_SAMPLES * 2, "mel.f16": scale.bins * 2, "phones.u8": 1}  # bytes a frame
    for name, width in widths.items():
        (folder / name).touch()
        os.truncate(folder / name, frames * width)
    record = {**teacher.provenance(), "lines": len(lines), "phones": list(teacher.phones), "mel": asdict(scale)}
    (folder / "provenance.json").write_text(json.dumps(record, indent=1))
    with index.open("a") as rows:
        for line in lines[len(done) :]:
            audio, labels, spoken = _speak_line(line, teacher)
            mel = normalised_mel(
                torch.from_numpy(audio)[None] / 32768, scale.bins, scale.mean, scale.std, scale.high_hz
            )
            for name, array in (("audio.i16", audio), ("mel.f16", mel[0].numpy().astype("<f2")), ("phones.u8", labels)):
                with (folder / name).open("ab") as file:
                    file.write(array.tobytes())
            row = Utterance(line.text, line.kind, line.held_out, frames, len(labels), spoken)
            rows.write(json.dumps(asdict(row)) + "\n")
            rows.flush()
            frames += len(labels)


def _complete_rows(index: Path) -> list[Utterance]:
    """The rows of an index; a last line cut by a kill is removed from the file."""
    if not index.exists():
        return []
    text = index.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        index.write_text(whole)
    return [Utterance(**json.loads(row)) for row in whole.splitlines()]


def _speak_line(line: SpeechLine, teacher: Teacher) -> tuple[np.ndarray, np.ndarray, int]:
    """-> audio (W,) int16 padded to whole blocks, one phone label a frame, frames before the padding."""
    samples, phones = trim(*teacher.speak(line.text))
    spoken = -(-len(samples) // HOP_SAMPLES)
    frames = -(-spoken // BLOCK_FRAMES) * BLOCK_FRAMES
    padded = np.zeros(frames * HOP_SAMPLES, dtype=np.float32)
    padded[: len(samples)] = samples
    audio = np.clip(np.round(padded * 32767), -32768, 32767).astype("<i2")
    return audio, frame_labels(phones, teacher.phones, frames), spoken


class Corpus:
    """One or more corpus folders, read as memory maps."""

    def __init__(self, folders: Sequence[Path]):
        self.utterances: list[tuple[int, Utterance]] = []
        self._audio: list[np.ndarray] = []
        self._mel: list[np.ndarray] = []
        self._phones: list[np.ndarray] = []
        for number, folder in enumerate(folders):
            rows = _complete_rows(folder / "index.jsonl")
            record = json.loads((folder / "provenance.json").read_text())
            self.phone_names = tuple(record["phones"])
            self._audio.append(np.memmap(folder / "audio.i16", dtype="<i2", mode="r").reshape(-1, HOP_SAMPLES))
            self._mel.append(np.memmap(folder / "mel.f16", dtype="<f2", mode="r").reshape(-1, record["mel"]["bins"]))
            self._phones.append(np.memmap(folder / "phones.u8", dtype=np.uint8, mode="r"))
            self.utterances += [(number, row) for row in rows]

    def select(self, held_out: bool, kind: str | None = None) -> list[int]:
        """Numbers of the utterances of one split (and kind)."""
        return [
            i for i, (_, u) in enumerate(self.utterances) if u.held_out == held_out and (kind is None or u.kind == kind)
        ]

    def audio(self, number: int, start: int = 0, frames: int | None = None) -> np.ndarray:
        """Samples of frames [start, start + frames): (frames, 240) int16."""
        return self._cut(self._audio, number, start, frames)

    def mel(self, number: int, start: int = 0, frames: int | None = None) -> np.ndarray:
        """Normalised mel: (frames, bins) float16."""
        return self._cut(self._mel, number, start, frames)

    def phones(self, number: int, start: int = 0, frames: int | None = None) -> np.ndarray:
        """Phone labels: (frames,) uint8."""
        return self._cut(self._phones, number, start, frames)

    def _cut(self, arrays: list[np.ndarray], number: int, start: int, frames: int | None) -> np.ndarray:
        folder, row = self.utterances[number]
        begin = row.start + start
        stop = row.start + row.frames if frames is None else begin + frames
        return arrays[folder][begin:stop]


class Crops:
    """Random stretches of one length out of some utterances, on block boundaries; long utterances come more often."""

    def __init__(self, corpus: Corpus, numbers: Sequence[int], frames: int):
        self.corpus = corpus
        self.frames = frames
        lengths = [(i, corpus.utterances[i][1].frames) for i in numbers]
        self.fitting = [(i, length) for i, length in lengths if length >= frames]
        self.starts = np.cumsum([0] + [(length - frames) // BLOCK_FRAMES + 1 for _, length in self.fitting])

    def held_out(self, count: int) -> list[tuple[int, int, int]]:
        """The beginnings of up to ``count`` held-out utterances that are long enough, as ``draw`` gives stretches."""
        kept = self.corpus.select(held_out=True)
        return [(i, 0, self.frames) for i in kept if self.corpus.utterances[i][1].frames >= self.frames][:count]

    def draw(self, rng: np.random.Generator, count: int) -> list[tuple[int, int, int]]:
        """``count`` of (utterance, first frame, frames)."""
        drawn = rng.integers(self.starts[-1], size=count)
        rows = np.searchsorted(self.starts, drawn, side="right") - 1
        return [
            (self.fitting[r][0], int(at - self.starts[r]) * BLOCK_FRAMES, self.frames)
            for r, at in zip(rows, drawn, strict=True)
        ]


@dataclass(frozen=True)
class SpeechOptions:
    """teacher: "flite" or "tones"; phrases and words: how many made-up lines beside the domain's replies, if those are
    wanted; longest: words in the longest list; voice: of flite; wide: replies of the whole domain, and so many
    ``sentences`` of plain English."""

    teacher: str
    mel: MelScale
    phrases: int
    words: int
    replies: bool = True
    longest: int = 8
    voice: str = "slt"
    wide: bool = False
    sentences: int = 0


def _script(options: SpeechOptions, seed: int) -> list[SpeechLine]:
    if options.wide:
        from descant.train.nano.script import wide_script  # it draws on modules that draw on this one

        return wide_script(options.phrases, options.words, options.sentences, seed, options.longest)
    return speech_lines(options.phrases, options.words, seed, options.replies, options.longest)


def make_speech(context: StageContext) -> None:
    """The task "speech": the whole script in the teacher's voice."""
    options = read_dataclass(SpeechOptions, context.stage.options, f"stages.{context.stage.name}.options")
    teachers: dict[str, Callable[[], Teacher]] = {"flite": lambda: Flite(options.voice), "tones": Tones}
    if options.teacher not in teachers:
        raise ConfigError(f"unknown teacher {options.teacher!r}; known are {', '.join(teachers)}")
    lines = _script(options, context.stage.seed)
    write_corpus(context.folder, lines, teachers[options.teacher](), options.mel)
    corpus = Corpus([context.folder])
    seconds = sum(u.frames for _, u in corpus.utterances) * HOP_SAMPLES / OUTPUT_RATE_HZ
    (context.folder / "final.json").write_text(json.dumps({"lines": len(lines), "seconds": seconds}))
