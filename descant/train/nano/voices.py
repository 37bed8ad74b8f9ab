"""Synthetic speakers, and which of them may train: the split is by engine and voice, never by recording.

A speaker is a voice of an engine at another pace, pitch and length of the vocal tract. The engines are programs (flite,
espeak-ng, festival) or a package (py-nanotts, which holds SVOX Pico); training and measuring need them, nothing at run
time does. What each one's licence allows is in ``ENGINES``, which the data card prints.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from descant.errors import OptionError
from descant.train.nano.augment import CLIP_RATE_HZ, speed
from descant.train.nano.speech_data import RAM_DISK, read_mono

FLITE_PITCH_HZ = {"slt": 168, "rms": 98, "kal16": 90, "kal": 89, "awb": 128}
FESTIVAL_VOICES = {"ked": "voice_ked_diphone", "slt-hts": "voice_cmu_us_slt_arctic_hts"}
ESPEAK_WORDS_A_MINUTE = 165
ESPEAK_PITCH = 50  # of 0 to 99, espeak's own scale: as the voice is
TRAINING_FLITE = ("slt", "rms", "kal16", "kal")
TRAINING_ACCENTS = ("en-us", "en-gb", "en-gb-x-rp", "en-029", "en-us-nyc", "en-gb-x-gbclan", "en-gb-x-gbcwmd")
TRAINING_TIMBRES = (
    "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5", "Alex", "Andy", "Annie", "Andrea",
    "Michael", "Denis", "Linda", "Lee", "Max", "Gene", "belinda", "benjamin", "steph", "edward", "paul", "rob",
    "Alicia",
)  # fmt: skip


@dataclass(frozen=True)
class VoiceMaker:
    """A maker of voices. trains: its voices may be learnt from; package: what to install."""

    licence: str
    package: str
    trains: bool


ENGINES = {
    "flite": VoiceMaker("BSD-style, Carnegie Mellon University", "apt install flite", True),
    "espeak": VoiceMaker("GPL-3.0 program; its output is free", "apt install espeak-ng", True),
    "pico": VoiceMaker("Apache-2.0, SVOX AG", "pip install 'descant[voices]'", True),
    "festival": VoiceMaker(
        "BSD-style, University of Edinburgh and Carnegie Mellon University",
        "apt install festival festvox-kdlpc16k festvox-us-slt-hts", False
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Speaker:
    """A voice of an engine. pace, pitch, formant: multiples of what the voice has (formant > 1: a shorter tract)."""

    engine: str
    voice: str
    pace: float = 1.0
    pitch: float = 1.0
    formant: float = 1.0

    def __str__(self) -> str:
        return f"{self.engine}:{self.voice}:{self.pace:g}:{self.pitch:g}:{self.formant:g}"

    @classmethod
    def parse(cls, text: str) -> Speaker:
        """The speaker whose ``str`` this is."""
        engine, voice, *numbers = text.split(":")
        return cls(engine, voice, *(float(number) for number in numbers))


OTHER_SYNTHETIC = (  # makers that train, in voices that do not
    Speaker("flite", "awb"), Speaker("espeak", "en-gb-scotland+m3"), Speaker("espeak", "en-gb-scotland+f4"),
    Speaker("pico", "en-GB"),
)  # fmt: skip
NATURAL_UNMET = (Speaker("festival", "ked"), Speaker("festival", "slt-hts"))  # a maker that never trains


def draw_speaker(rng: random.Random) -> Speaker:
    """A speaker of training."""
    engine = rng.choices(("flite", "espeak", "pico"), (0.4, 0.35, 0.25))[0]
    if engine == "flite":
        voice = rng.choice(TRAINING_FLITE)
    elif engine == "pico":
        voice = "en-US"
    else:
        voice = f"{rng.choice(TRAINING_ACCENTS)}+{rng.choice(TRAINING_TIMBRES)}"
    pace = round(rng.uniform(0.75, 1.3), 2)
    return Speaker(engine, voice, pace, round(rng.uniform(0.75, 1.35), 2), round(rng.uniform(0.86, 1.16), 2))


def may_train(speaker: Speaker) -> bool:
    """False for whoever measures."""
    held_out = {(one.engine, one.voice) for one in (*OTHER_SYNTHETIC, *NATURAL_UNMET)}
    return ENGINES[speaker.engine].trains and (speaker.engine, speaker.voice) not in held_out


def speak(text: str, speaker: Speaker) -> np.ndarray:
    """Say ``text``: float32 (W,) at 16 kHz, in [-1, 1], with what silence the engine puts around it.

    A tract of another length is speech that was asked for slower and lower, and is then played faster: pace and pitch
    come back, formants stay moved. OptionError: an unknown engine, or one that is not installed.
    """
    if speaker.engine not in ENGINES:
        raise OptionError(f"unknown speech engine {speaker.engine!r}; choose one of {', '.join(ENGINES)}")
    pace = speaker.pace / speaker.formant
    pitch = speaker.pitch / speaker.formant
    if speaker.engine == "pico":
        samples = _pico(text, speaker.voice, pace, pitch)
    else:
        samples = _program(text, speaker, pace, pitch)
    return samples if speaker.formant == 1.0 else speed(samples, speaker.formant)


def _pico(text: str, voice: str, pace: float, pitch: float) -> np.ndarray:
    try:
        from py_nanotts import NanoTTS
    except ImportError:
        raise OptionError(f"the voices of SVOX Pico are not installed: {ENGINES['pico'].package}") from None
    pcm = NanoTTS().speak(text, voice=voice, speed=pace, pitch=pitch)
    return np.frombuffer(pcm, "<i2").astype(np.float32) / 32768


def _program(text: str, speaker: Speaker, pace: float, pitch: float) -> np.ndarray:
    with tempfile.TemporaryDirectory(dir=RAM_DISK if RAM_DISK.is_dir() else None) as folder:
        wav = Path(folder) / "said.wav"
        command = _command(text, speaker, pace, pitch, wav)
        if shutil.which(command[0]) is None:
            raise OptionError(f"{command[0]} is not installed: {ENGINES[speaker.engine].package}")
        subprocess.run(command, input=text.encode(), check=True, capture_output=True)
        return read_mono(wav, CLIP_RATE_HZ)


def _command(text: str, speaker: Speaker, pace: float, pitch: float, wav: Path) -> list[str]:
    """The command line that writes ``wav``. espeak's pitch is logarithmic: 50 steps are about an octave."""
    name = speaker.voice
    if speaker.engine == "flite":
        hertz = FLITE_PITCH_HZ[name] * pitch
        settings = ["--setf", f"duration_stretch={1 / pace:.3f}", "--setf", f"int_f0_target_mean={hertz:.1f}"]
        return ["flite", "-voice", name, *(settings if (pace, pitch) != (1, 1) else []), "-t", text, "-o", str(wav)]
    if speaker.engine == "espeak":
        steps = min(99, max(0, round(ESPEAK_PITCH + 50 * np.log2(pitch))))
        words = str(round(ESPEAK_WORDS_A_MINUTE * pace))
        return ["espeak-ng", "-v", name, "-s", words, "-p", str(steps), "-w", str(wav), text]
    if (speaker.pace, speaker.pitch, speaker.formant) != (1, 1, 1):
        raise OptionError(f"the voices of festival speak as they are; {speaker} asks for another pace, pitch or tract")
    if name not in FESTIVAL_VOICES:
        raise OptionError(f"unknown voice {name!r} of festival; choose one of {', '.join(FESTIVAL_VOICES)}")
    return ["text2wave", "-eval", f"({FESTIVAL_VOICES[name]})", "-o", str(wav)]
