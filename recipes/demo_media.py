"""Make the media of `make demo` again: python recipes/demo_media.py (needs flite; the demo itself does not)."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from PIL import Image

from descant.cli.player import WavWriter
from descant.train.nano import pictures, sounds, videos
from descant.train.nano.questions import QUESTION_RATE_HZ, synthesise

FOLDER = Path(__file__).resolve().parent.parent / "descant" / "assets" / "demo"
SEED = 20261123
SPOKEN = "how many shapes are there"
VOICE = "flite:slt"


def main(folder: Path = FOLDER) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(SEED)
    scene = pictures.scene("blue", "star", 3, rng)
    Image.fromarray(pictures.render_scene(scene)).save(folder / "stars.png", optimize=True)
    with WavWriter(folder / "question.wav", QUESTION_RATE_HZ) as file:
        file.write(synthesise(SPOKEN, VOICE))
    with WavWriter(folder / "sound.wav", sounds.SOUND_RATE_HZ) as file:
        file.write(sounds.make_sound("siren", np.random.default_rng(SEED)))
    clip = videos.draw_video(rng)
    videos.write_video(clip, folder / "video.mp4")
    print(f"{folder}: {len(scene.boxes)} {scene.colour} {scene.shape}s; at the beep it is {clip.answer}")


if __name__ == "__main__":
    main()
