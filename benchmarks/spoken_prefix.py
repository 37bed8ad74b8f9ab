"""How well `descant.engine.spoken_prefix` tells which words were heard when an answer is interrupted.

    python benchmarks/spoken_prefix.py                the table; needs flite, espeak-ng and the extra `eval`; 2 minutes
    python benchmarks/spoken_prefix.py --json FILE     the same as JSON
    python benchmarks/spoken_prefix.py --fit           the weights, least squares on the teacher's training lines

nano speaks held-out lines; where its words truly are is carried over from the teacher's reading of the same text, whose
times are known (`timing.py`). How far that reference is off is measured where both sides are known: from one flite
voice to another. Then the synthesisers' own speech, whose times are exact: the voice that the weights were fitted on,
another, another program, digits, and three sentences in a row. Each sound is interrupted at random moments.

Columns: words wrongly kept or dropped (mean), share exact, share within one word, and seconds between the moment of the
interruption and the nearest one for which the answer would have been right. Methods: the weights with the sound's
length known; without it, at the default pace; at the pace of ten other answers; and, length known, sharing it out by
characters or by words alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soxr
import torch
from timing import Reading, TimedEspeak, TimedFlite, carried, joined

from descant.config import OUTPUT_RATE_HZ
from descant.engine.spoken_prefix import (
    SECONDS_PER_LETTER,
    is_spoken,
    pace_of,
    pause_after,
    spoken_pieces,
    spoken_prefix,
)
from descant.evals.speech import EAR_RATE_HZ, WhisperEar
from descant.omni import load
from descant.train.nano import domain
from descant.train.nano.sentences import SpeechLine, speech_lines
from descant.train.nano.speech_data import Flite
from descant.types import AudioChunk

SEED = 7
MOMENTS = 40  # interruptions of each sound
Method = Callable[[Reading, float], int]  # (reading, seconds) -> words


def script() -> list[SpeechLine]:
    """Replies of the domain, sentences like them and lists of words; one in 25 of the made-up ones is held out."""
    return speech_lines(2000, 500, SEED)


def in_digits(text: str) -> str:
    """ "After nine comes ten." -> "after 9 comes 10." """
    for value in sorted(range(101), key=lambda n: -len(domain.number(n))):
        text = text.lower().replace(domain.number(value), str(value))
    return text


# ---------------------------------------------------------------- readings whose words have known times


def nano_readings(texts: Sequence[str], teacher: Flite, timed: TimedFlite) -> list[Reading]:
    """nano reads each line aloud."""
    model, found = load("nano"), [Reading("", (), 0.0)][:0]
    for seed, text in enumerate(texts):
        events = model.speak(text, seed=seed)
        sound = np.concatenate([event.samples for event in events if isinstance(event, AudioChunk)])
        found.append(carried(timed.read(text), teacher.speak(text)[0], sound))
    return found


def reference_error(texts: Sequence[str], teacher: Flite, timed: TimedFlite) -> dict[str, float]:
    """Seconds by which word ends are off where they are known: carried between two voices; heard by Whisper.

    carried_exact: share of random moments at which the carried times count the right number of words.
    """
    rng, right_count = np.random.default_rng(SEED), [True][:0]
    other, timed_other, ear = Flite("rms"), TimedFlite("rms"), WhisperEar()
    warped, whispered, missed = [0.0][:0], [0.0][:0], 0
    for text in texts:
        sound, known = teacher.speak(text)[0], timed.read(text)
        found, right = carried(known, sound, other.speak(text)[0]), timed_other.read(text)
        warped += [abs(a[1] - b[1]) for a, b in zip(found.spans, right.spans, strict=True)]
        moments = rng.uniform(0, right.seconds, MOMENTS)
        right_count += [counted(found, at) == counted(right, at) for at in moments]
        at_16k = soxr.resample(sound, OUTPUT_RATE_HZ, EAR_RATE_HZ)
        segments, _ = ear.model.transcribe(at_16k, language="en", word_timestamps=True, temperature=0.0)
        ends = [word.end for segment in segments for word in segment.words]
        if len(ends) == len(known.spans):
            whispered += [abs(end - span[1]) for end, span in zip(ends, known.spans, strict=True)]
        else:
            missed += 1
    return {
        "carried_mean_s": float(np.mean(warped)),
        "carried_exact": float(np.mean(right_count)),
        "carried_worst_tenth_s": float(np.percentile(warped, 90)),
        "whisper_mean_s": float(np.mean(whispered)),
        "whisper_other_word_count": missed / len(texts),
    }


def synthetic(lines: Sequence[str], slt: TimedFlite) -> dict[str, list[Reading]]:
    """What the synthesisers say of themselves. The flite library reads on where its program would begin anew."""
    rms, espeak = TimedFlite("rms"), TimedEspeak()
    three = [list(lines[i : i + 3]) for i in range(0, len(lines) - 2, 3)]
    digits = [text for text in map(in_digits, lines) if any(map(str.isdigit, text))]
    return {
        "flite slt": [slt.read(line) for line in lines],
        "flite slt, digits": [slt.read(line) for line in digits],
        "flite slt, three sentences": [joined(slt.read, some) for some in three],
        "flite rms": [rms.read(line) for line in lines],
        "espeak-ng": [espeak.read(line) for line in lines],
        "espeak-ng, three sentences": [espeak.read(" ".join(some)) for some in three],
    }


# ---------------------------------------------------------------- methods and their error


def counted(reading: Reading, seconds: float) -> int:
    """The words of which more than half was heard."""
    return sum((a + b) / 2 < seconds for a, b in reading.spans)


def words_in(text: str, characters: int) -> int:
    return sum(end <= characters for _, end in spoken_pieces(text))


def by_characters(reading: Reading, seconds: float) -> int:
    place = seconds / reading.seconds * len(reading.text)
    return sum((a + b) / 2 < place for a, b in spoken_pieces(reading.text))


def by_words(reading: Reading, seconds: float) -> int:
    count = len(reading.spans)
    return sum((n + 0.5) / count < seconds / reading.seconds for n in range(count))


def by_weight(pace: float | None) -> Method:
    """pace None: the length of the sound is known."""

    def method(reading: Reading, seconds: float) -> int:
        spoken = reading.seconds if pace is None else None
        heard = spoken_prefix(reading.text, seconds, spoken=spoken, pace=pace or SECONDS_PER_LETTER)
        return words_in(reading.text, heard)

    return method


def score(method: Method, readings: Sequence[Reading]) -> dict[str, float]:
    rng, wrong, away = np.random.default_rng(SEED), [0][:0], [0.0][:0]
    for reading in readings:
        middles = [(a + b) / 2 for a, b in reading.spans]
        edges = [0.0, *middles, reading.seconds]  # n words are right between edges n and n + 1
        for at in rng.uniform(0, reading.seconds, MOMENTS):
            said = method(reading, float(at))
            wrong.append(said - counted(reading, float(at)))
            away.append(max(edges[said] - at, at - edges[said + 1], 0.0))
    off = np.abs(wrong)
    return {
        "words": float(off.mean()), "exact": float((off == 0).mean()), "within_one": float((off <= 1).mean()),
        "seconds": float(np.mean(away)), "kept_too_many": float(np.mean(wrong)),
    }  # fmt: skip


def table(sets: dict[str, list[Reading]]) -> dict[str, dict[str, dict[str, float]]]:
    rows = {}
    for name, readings in sets.items():
        usable = [one for one in readings if len(one.spans) == len(spoken_pieces(one.text))]
        if len(usable) < 0.9 * len(readings):
            raise SystemExit(f"{name}: only {len(usable)} of {len(readings)} texts have a time for each word")
        others, rest = usable[:10], usable[10:]
        pace = float(np.mean([pace_of(one.text, one.seconds) for one in others]))
        methods: dict[str, Method] = {
            "length known": by_weight(None),
            "length unknown": by_weight(SECONDS_PER_LETTER),
            "pace of ten answers": by_weight(pace),
            "by characters": by_characters,
            "by words": by_words,
        }
        rows[name] = {method: score(run, rest) for method, run in methods.items()}
    return rows


# ---------------------------------------------------------------- the weights


def fit(lines: Sequence[str], timed: TimedFlite) -> dict[str, float]:
    """Seconds a letter, and the weights in letters, from the lengths of words and pauses."""
    features, lengths, commas = [[0.0]][:0], [0.0][:0], [0.0][:0]
    for text in [*lines, *map(in_digits, lines)]:
        reading, pieces = timed.read(text), spoken_pieces(text)
        if len(reading.spans) != len(pieces):
            continue
        for n, ((start, end), (begin, stop)) in enumerate(zip(pieces, reading.spans, strict=True)):
            word, last = text[start:end], n + 1 == len(pieces)
            pause = pause_after(word) > 0
            digits = sum(char.isdigit() for char in word)
            features.append([sum(map(is_spoken, word)) - digits, 1.0, digits, float(pause or last)])
            lengths.append(stop - begin)
            if pause and not last:
                commas.append(reading.spans[n + 1][0] - stop)
    letter, word_s, digit, drawn = np.linalg.lstsq(np.array(features), np.array(lengths), rcond=None)[0]
    weights = {"WORD_LETTERS": word_s, "DIGIT_LETTERS": digit}
    weights |= {"CLAUSE_LETTERS (drawn out)": drawn, "CLAUSE_LETTERS (pause)": np.mean(commas)}
    return {"SECONDS_PER_LETTER": float(letter), **{name: float(value / letter) for name, value in weights.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=70, help="lines that nano reads; ten of them give the pace")
    parser.add_argument("--fit", action="store_true", help="fit the weights instead")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    slt, lines = TimedFlite(), script()
    if args.fit:
        for name, value in fit([line.text for line in lines if not line.held_out][:500], slt).items():
            print(f"{name:20} {value:.3f}")
        return
    held = [line for line in lines if line.held_out]
    replies, made_up = ([line.text for line in held if (line.kind == "reply") is own] for own in (True, False))
    both = [text for pair in zip(replies, made_up, strict=False) for text in pair]
    if len(both) < args.count:
        parser.error(f"--count {args.count}: there are {len(both)} held-out lines; give at most that")
    teacher = Flite()
    reference = reference_error(both[:20], teacher, slt)
    rows = table({"nano": nano_readings(both[: args.count], teacher, slt), **synthetic(both, slt)})
    print("reference: " + ", ".join(f"{name} {value:.3f}" for name, value in reference.items()))
    print(f"{'sound':27} {'method':20} words  exact  within one  seconds")
    for name, methods in rows.items():
        for method, row in methods.items():
            print(
                f"{name:27} {method:20} {row['words']:5.2f}  {row['exact']:5.1%}  {row['within_one']:10.1%}  "
                f"{row['seconds']:7.3f}"
            )
    if args.json:
        found = json.dumps({"reference": reference, "error": rows})
        rounded = json.loads(found, parse_float=lambda number: round(float(number), 4))
        args.json.write_text(json.dumps(rounded, indent=1) + "\n")


if __name__ == "__main__":
    main()
