"""How long should a block of the audio encoder be? Whisper tiny.en's encoder in this project's, at 2, 8 and 30 seconds.

    python benchmarks/ears.py                    needs flite, espeak-ng, and the extras eval and voices

Three things are measured for each length (``n_window`` is half a block, in frames of 10 ms):

- agreement of the features with those of one block of 30 s (cosine; difference as a share of the norm);
- words: Whisper's own decoder (through CTranslate2) reads the features, 25 a second, each given twice as it expects 50;
- the price of hearing while one speaks: a block that grows is encoded anew at each look, every 0.4 s (processor time).

Clips: two questions of nano's domain with a second of silence between, by speakers of several makers.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import jiwer
import numpy as np
import torch
from ctranslate2 import StorageView
from ctranslate2.models import Whisper
from faster_whisper.tokenizer import Tokenizer as WhisperTokens
from tokenizers import Tokenizer
from torch import Tensor

from descant.config import AudioConfig, InputsConfig
from descant.evals.speech import words
from descant.inputs.audio import log_mel
from descant.model.audio import AudioEncoder
from descant.train.nano import domain, voices
from descant.train.whisper import encoder_weights, whisper_file

INPUTS = replace(InputsConfig(), feature_size=80)
WHOLE = AudioConfig(80, 4, 6, 384, 1536, 384, n_window=1500)
WINDOWS = {"2 s": 100, "4 s": 200, "8 s": 400, "30 s": 1500}
LOOK_S = 0.4  # a live session lays a turn out as often
SECONDS = (4, 10, 30)  # of speech without a pause


@dataclass
class Row:
    """One block length."""

    block: str
    cosine: float
    difference: float
    recall: float  # share of the spoken words that were found, percent
    wer: float
    look_ms: dict[str, float]  # seconds of speech -> mean time of a look, milliseconds
    turn_ms: dict[str, float]  # -> all looks of the turn


def encoder(window: int) -> AudioEncoder:
    made = AudioEncoder(replace(WHOLE, n_window=window))
    made.load_state_dict(encoder_weights(whisper_file(), WHOLE), strict=False)
    return made.eval()


def clips(count: int) -> list[tuple[str, np.ndarray]]:
    """(text, samples) of ``count`` pairs of questions."""
    speakers = [voices.Speaker("flite", "slt"), voices.Speaker("flite", "rms"), voices.Speaker("espeak", "en-us+f3"),
                voices.Speaker("pico", "en-US"), *voices.OTHER_SYNTHETIC]  # fmt: skip
    speakers += voices.NATURAL_UNMET if shutil.which("text2wave") else ()
    made = []
    for i in range(count):
        rng = random.Random(f"ears/{i}")
        said = [domain.sample(task, rng, "test")[0] for task in rng.sample(("plus", "chat", "opposite", "next"), 2)]
        speaker = speakers[i % len(speakers)]
        first, second = (voices.speak(text, speaker) for text in said)
        made.append((" ".join(said), np.concatenate([first, np.zeros(16000, np.float32), second])))
    return made


class Reader:
    """Whisper's decoder on given features."""

    def __init__(self) -> None:
        folder = whisper_file().parent
        self.model = Whisper(str(folder), device="cpu", compute_type="float32", intra_threads=1)
        self.tokens = WhisperTokens(Tokenizer.from_file(str(folder / "tokenizer.json")), False, language="en")

    def read(self, rows: Tensor) -> str:
        """rows (T, 384) at 25 a second -> text. Each row stands for two of Whisper's; silence is not added."""
        twice = rows.repeat_interleave(2, dim=0)
        found = self.model.generate(
            StorageView.from_array(twice[None].contiguous().numpy()),
            [[*self.tokens.sot_sequence, self.tokens.no_timestamps]], beam_size=3, max_length=96,
        )  # fmt: skip
        return str(self.tokens.decode(found[0].sequences_ids[0]))


def looks(ears: AudioEncoder, seconds: int) -> list[float]:
    """Milliseconds of each look at a turn of so much speech: whole blocks are encoded once, the last one each time."""
    mel = torch.randn(80, 100 * seconds, generator=torch.Generator().manual_seed(0))
    block, done, times = ears.cfg.block_frames, 0, []
    for look in range(1, round(seconds / LOOK_S) + 1):
        frames = min(mel.shape[1], round(100 * LOOK_S * look))
        start = time.process_time()
        ears.features([mel[:, done:frames]])
        times.append(1000 * (time.process_time() - start))
        done = frames // block * block
    return times


def measure(name: str, spoken: Sequence[tuple[str, np.ndarray]], reader: Reader, turns: int) -> Row:
    """All figures of one block length; every clip is followed by silence to 30 s, as Whisper is used."""
    ears, whole = encoder(WINDOWS[name]), encoder(WHOLE.n_window)
    cosines, shares, found, count, pairs = [], [], 0, 0, []
    for text, samples in spoken:
        mel = log_mel(np.pad(samples, (0, 480_000 - len(samples))), INPUTS)
        rows, full = ears.features([mel])[0], whole.features([mel])[0]
        valid = len(samples) // 640
        cosines.append(float(torch.cosine_similarity(rows[:valid], full[:valid]).mean()))
        shares.append(float((rows - full)[:valid].norm() / full[:valid].norm()))
        heard, wanted = words(reader.read(rows)), words(text)
        heard = heard[: len(wanted)] if heard[len(wanted) :] == heard[: len(heard) - len(wanted)] else heard
        aligned = jiwer.process_words(" ".join(wanted), " ".join(heard))
        found, count = found + aligned.hits, count + len(wanted)
        pairs.append((" ".join(wanted), " ".join(heard)))
    timed = {str(s): [looks(ears, s) for _ in range(turns)] for s in SECONDS}
    return Row(
        name, statistics.mean(cosines), statistics.mean(shares), 100 * found / count,
        100 * jiwer.wer([w for w, _ in pairs], [h for _, h in pairs]),
        {s: statistics.median(statistics.mean(t) for t in all_) for s, all_ in timed.items()},
        {s: statistics.median(sum(t) for t in all_) for s, all_ in timed.items()},
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=30)
    parser.add_argument("--turns", type=int, default=5, help="repetitions of each timing")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ears.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    spoken, reader = clips(given.clips), Reader()
    with torch.inference_mode():
        rows = [measure(name, spoken, reader, given.turns) for name in WINDOWS]
    for row in rows:
        print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in asdict(row).items()}))
    given.out.write_text(json.dumps({"clips": given.clips, "rows": [asdict(row) for row in rows]}, indent=1))


if __name__ == "__main__":
    main()
