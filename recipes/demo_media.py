"""Make the media of `make demo` again: python recipes/demo_media.py (needs flite and the extra voices; the
demo itself does not)."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from PIL import Image

from descant.cli.player import WavWriter
from descant.train.nano import microphone, pictures, sounds, videos
from descant.train.nano.questions import QUESTION_RATE_HZ, synthesise
from descant.train.nano.spoken import say_clip

FOLDER = Path(__file__).resolve().parent.parent / "descant" / "assets" / "demo"
SEED = 20261123
SPOKEN = "how many shapes are there"
VOICE = "flite:slt"
IN_A_ROOM = "how much is nine minus four"
ROOM_VOICE = "pico:en-US"
LEAD_S, TRAIL_S = 1.5, 1.0  # of silence around the words


def main(folder: Path = FOLDER) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(SEED)
    scene = pictures.scene("blue", "star", 3, rng)
    Image.fromarray(pictures.render_scene(scene)).save(folder / "stars.png", optimize=True)
    with WavWriter(folder / "question.wav", QUESTION_RATE_HZ) as file:
        file.write(synthesise(SPOKEN, VOICE))
    with WavWriter(folder / "room.wav", QUESTION_RATE_HZ) as file:
        file.write(in_a_noisy_room(say_clip(IN_A_ROOM, ROOM_VOICE), np.random.default_rng(SEED)))
    with WavWriter(folder / "sound.wav", sounds.SOUND_RATE_HZ) as file:
        file.write(sounds.make_sound("siren", np.random.default_rng(SEED)))
    clip = videos.draw_video(rng)
    videos.write_video(clip, folder / "video.mp4")
    print(f"{folder}: {len(scene.boxes)} {scene.colour} {scene.shape}s; at the beep it is {clip.answer}")


def in_a_noisy_room(words: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a microphone across the room makes of it: an echo, silence around, and brown noise 15 dB below."""
    heard = microphone.in_a_room(microphone.at_level(words, -24.0), 0.4, 0.0, rng)
    heard = microphone.surrounded(heard, LEAD_S, TRAIL_S, None, rng)
    return microphone.mixed(heard, microphone.coloured(len(heard), -6.0, rng), 15.0)


if __name__ == "__main__":
    main()
