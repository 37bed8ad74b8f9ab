"""Make the media of `make demo` again: python recipes/demo_media.py (needs flite; the demo itself does not)."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from PIL import Image

from descant.player import WavWriter
from descant.train.nano import pictures, sounds, videos
from descant.train.nano.questions import RATE, synthesise

FOLDER = Path(__file__).resolve().parent.parent / "descant" / "assets" / "demo"
SEED = 20261123
SPOKEN = "how many shapes are there"
VOICE = "flite:slt"


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    rng = random.Random(SEED)
    scene = pictures.scene("blue", "star", 3, rng)
    Image.fromarray(pictures.render(scene)).save(FOLDER / "stars.png", optimize=True)
    with WavWriter(FOLDER / "question.wav", RATE) as file:
        file.write(synthesise(SPOKEN, VOICE))
    with WavWriter(FOLDER / "sound.wav", sounds.RATE) as file:
        file.write(sounds.make("siren", np.random.default_rng(SEED)))
    clip = videos.draw(rng)
    videos.write(clip, FOLDER / "video.mp4")
    print(f"{FOLDER}: {len(scene.boxes)} {scene.colour} {scene.shape}s; at the beep it is {clip.answer}")


if __name__ == "__main__":
    main()
