"""The table of what a model can do: every row asked through the user's object, speech judged by an independent ear."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from descant import omni as omnis
from descant.config import OUTPUT_RATE_HZ
from descant.errors import OptionError
from descant.evals import people, talking, tasks, wide
from descant.evals.speech import Ear, SphinxEar, WhisperEar, word_error
from descant.evals.tasks import EvalItem
from descant.train.nano import domain, refusals
from descant.train.nano.speech_data import Flite
from descant.types import AudioChunk, Finished

SPEECH_TASKS = ("plus", "minus", "opposite", "next", "colour", "count", "describe", "sound")
MARGIN_POINTS = 5.0  # points: how far from chance a control may be
SPEECH_BAR_POINTS = 10.0  # points of word error above the floor
SHUFFLED_SETS = 10  # sets of wrong labels that the shuffled control takes the mean of: one alone is mostly luck

Log = Callable[[str], None]


@dataclass(frozen=True)
class ResultLine:
    """One line of the result; figures in percent. bar: what is asked for; below: the value must not exceed it."""

    name: str
    value: float
    chance: float | None
    bar: float | None
    met: bool | None  # None: reported, not judged
    samples: int
    below: bool = False
    note: str = ""


GROUPS = ("first", "words", "voices", "grid", "talks", "speech", "cost")


@dataclass(frozen=True)
class Measuring:
    """A measurement on its way: the model, questions a row, the seed, and where progress is told."""

    omni: omnis.Omni
    count: int
    seed: int
    log: Log


def run_evaluation(
    model: str | Path, out: Path, samples: int | None = None, seed: int = 0, groups: Sequence[str] = GROUPS,
    show: Callable[[Sequence[ResultLine]], None] | None = None,
) -> list[ResultLine]:  # fmt: skip
    """Measure ``model`` on fresh samples, show the table, and write ``out``/table.md and ``out``/results.json.

    samples: per row (default 120; spoken answers half of that, talks and cells of the grid a sixth). groups: some of
    ``GROUPS``. show: in place of the table on the screen. Needs flite, espeak-ng and the extras eval and voices.
    """
    if unknown := [name for name in groups if name not in GROUPS]:
        raise OptionError(f"unknown group of rows {unknown[0]!r}; choose some of {', '.join(GROUPS)}")
    console = Console(stderr=show is not None)
    check_programs(("flite", "espeak-ng"))
    run = Measuring(omnis.load(model), samples or 120, seed, console.log)
    lines: list[ResultLine] = []
    for name in GROUPS:
        if name in groups:
            lines += MEASURES[name](run)
            write_results(out, str(model), lines, seed)
    (show or (lambda made: console.print(evaluation_table(made))))(lines)
    return lines


def check_programs(names: Sequence[str]) -> None:
    """Refuse to begin without the programs that the last rows need. Raises OptionError."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        raise OptionError(
            f"the evaluation speaks its questions by {' and '.join(missing)}, not installed here: "
            f"apt install {' '.join(missing)} (Debian)"
        )


def text_answer(omni: omnis.Omni, item: EvalItem) -> str:
    """The text of one answer, without speech."""
    last = [event for event in omni.chat([item.question], speech=False, seed=0) if isinstance(event, Finished)]
    return last[0].text


def share_right(items: Sequence[EvalItem], said: Sequence[str]) -> float:
    """Percent of the answers that are right."""
    right = [
        refusals.is_honest(text) if item.honest else domain.correct(item.task, text, item.expected)
        for item, text in zip(items, said, strict=True)
    ]
    return 100 * sum(right) / max(1, len(right))


def measure_row(run: Measuring, row: tasks.TaskRow, count: int) -> ResultLine:
    """One row: its questions asked one by one."""
    items = row.items(count, run.seed)
    value = share_right(items, [text_answer(run.omni, item) for item in items])
    run.log(f"{row.name}: {value:.1f} %")
    return judged_line(row.name, value, row.chance, row.bar, len(items), row.below)


def judged_line(
    name: str, value: float, chance: float | None, bar: float | None, samples: int, below: bool = False, note: str = ""
) -> ResultLine:
    """A line with its verdict: at least the bar, or at most where it is ``below``."""
    met = None if bar is None else value <= bar if below else value >= bar
    return ResultLine(name, value, chance, bar, met, samples, below, note)


def understanding(omni: omnis.Omni, count: int, seed: int, log: Log) -> list[ResultLine]:
    """The rows that are right or wrong, and their controls."""
    lines = []
    mixed = []
    for row in tasks.TASK_ROWS:
        items = row.items(count, seed)
        said = [text_answer(omni, item) for item in items]
        value = share_right(items, said)
        if row.control:
            lines.append(control(row.name, value, row.chance, count))
        else:
            lines.append(judged_line(row.name, value, row.chance, row.bar, count))
        log(f"{row.name}: {value:.1f} %")
        if row.name in tasks.SHUFFLED:
            mixes = [share_right(tasks.mislabelled(row, items, seed + i), said) for i in range(1, SHUFFLED_SETS + 1)]
            value = sum(mixes) / SHUFFLED_SETS
            mixed.append(control(f"control: shuffled labels, {row.name}", value, row.chance, count))
    return lines + mixed


def control(name: str, value: float, chance: float, count: int) -> ResultLine:
    """A line that must stay at chance."""
    return ResultLine(name, value, chance, None, value <= chance + MARGIN_POINTS, count)


def speaking(omni: omnis.Omni, count: int, seed: int, log: Log) -> list[ResultLine]:
    """Word error of spoken answers against the text that the model wrote, beside the ears' floor on the teacher."""
    row = tasks.TaskRow("speech", SPEECH_TASKS, tasks.typed_item, 0, None)
    spoken = [voice_answer(omni, item) for item in row.items(count, seed)]
    teacher = Flite()
    truth = [(text, teacher.speak(text)[0], OUTPUT_RATE_HZ) for text, _, _ in spoken]
    lines = []
    for ear in (WhisperEar(), SphinxEar()):
        own, floor = (listen(ear, heard) for heard in (spoken, truth))
        above = own - floor
        bar = SPEECH_BAR_POINTS if ear.name == WhisperEar.name else None
        name = f"spoken answers: word error above the floor ({ear.name})"
        note = f"own {own:.1f} %, floor on the teacher's true voice {floor:.1f} %"
        lines.append(judged_line(name, above, None, bar, count, below=True, note=note))
        log(f"{name}: {above:.1f} points ({note})")
    return lines


def voice_answer(omni: omnis.Omni, item: EvalItem) -> tuple[str, np.ndarray, int]:
    """(text, samples, rate) of one answer given aloud."""
    events = list(omni.chat([item.question], seed=0))
    chunks = [event for event in events if isinstance(event, AudioChunk)]
    text = next(event.text for event in events if isinstance(event, Finished))
    sound = np.concatenate([c.samples for c in chunks]) if chunks else np.zeros(0, np.float32)
    return text, sound, chunks[0].rate if chunks else OUTPUT_RATE_HZ


def listen(ear: Ear, spoken: Sequence[tuple[str, np.ndarray, int]]) -> float:
    """Word error in percent; answers without a word are left out, having nothing to be heard."""
    return word_error([(text, ear.hear(samples, rate)) for text, samples, rate in spoken if text.strip()]).rate


# ---------------------------------------------------------------- what is shown and kept


MEASURES: Mapping[str, Callable[[Measuring], list[ResultLine]]] = {
    "first": lambda run: understanding(run.omni, run.count, run.seed, run.log),
    "words": lambda run: [measure_row(run, row, run.count) for row in wide.word_rows()],
    "voices": lambda run: [measure_row(run, row, run.count) for row in wide.voice_rows()] + person_phrase_lines(run),
    "grid": lambda run: [
        replace(measure_row(run, row, max(1, run.count // 6)), name=f"grid: voices {voice}, {condition}")
        for voice, condition, row in wide.grid_rows()
    ],
    "talks": lambda run: talk_lines(run),
    "speech": lambda run: (
        speaking(run.omni, max(2, run.count // 2), run.seed, run.log) + wide_speaking(run) if run.omni.speaks else []
    ),
    "cost": lambda run: cost_lines(run) if run.omni.speaks else [],
}


PHRASE_BAR = 35.0  # percent of word error


def person_phrase_lines(run: Measuring) -> list[ResultLine]:
    """Word error of a person's phrases, written down by the model; nothing where the recordings are not installed."""
    if not people.is_installed():
        return []
    items = [(text, wide.person_item(name)) for name, text in people.PHRASES.items()]
    rate = word_error([(text, text_answer(run.omni, item)) for text, item in items]).rate
    run.log(f"a person's phrases: word error {rate:.1f} %")
    name = "a person's phrases, written down: word error"
    return [judged_line(name, rate, 0, PHRASE_BAR, len(items), below=True)]


def talk_lines(run: Measuring) -> list[ResultLine]:
    """Right by turn, typed and spoken."""
    lines = []
    for way, bar in talking.TURN_BARS.items():
        count = max(1, run.count // 6)

        def told(done: int, shares: Sequence[float], way: str = way) -> None:
            run.log(f"talks {way}, {done}: " + " ".join(f"{share:.0f}" for share in shares))

        shares = talking.by_turn(run.omni, count, run.seed, way == "spoken", told)
        for turn, share in enumerate(shares, 1):
            lines.append(judged_line(f"talks {way}: right at turn {turn}", share, 0, bar, count))
    return lines


WIDE_SPEECH_BARS = {"own domain": 4.0, "common words": 20.0}  # points of word error above the floor


def wide_speaking(run: Measuring) -> list[ResultLine]:
    """Word error of all kinds of replies, and of plain sentences read aloud, above the floor on the teacher's voice."""
    count = max(2, run.count // 2)
    ear = WhisperEar()
    teacher = Flite()
    lines = []
    for what, items in (
        ("own domain", wide.reply_items(count, run.seed)),
        ("common words", wide.say_items(count, run.seed)),
    ):
        spoken = [voice_answer(run.omni, item) for item in items]
        if what == "common words":  # judged against what was to be read
            spoken = [(item.expected, sound, rate) for item, (_, sound, rate) in zip(items, spoken, strict=True)]
        truth = [(text, teacher.speak(text)[0], OUTPUT_RATE_HZ) for text, _, _ in spoken if text.strip()]
        own = listen(ear, spoken)
        floor = listen(ear, truth)
        note = f"own {own:.1f} %, floor {floor:.1f} %"
        run.log(f"speech, {what}: {own - floor:.1f} points ({note})")
        name = f"speech, {what}: word error above the floor"
        lines.append(judged_line(name, own - floor, None, WIDE_SPEECH_BARS[what], count, below=True, note=note))
    return lines


COST_BARS = {"shipped weights, MB": 60.0, "first sound after a question, s": 0.15, "real-time factor": 0.25}


def cost_lines(run: Measuring) -> list[ResultLine]:
    """Size of the weights; the first sound after a spoken question, and the real-time factor (medians, here)."""
    size, first, factor = talking.cost(run.omni, max(3, min(20, run.count)), run.seed)
    values = dict(zip(COST_BARS, (size, first, factor), strict=True))
    run.log(", ".join(f"{name} {value:.3g}" for name, value in values.items()))
    return [judged_line(name, value, None, COST_BARS[name], 1, below=True, note="") for name, value in values.items()]


def _cells(line: ResultLine) -> tuple[str, ...]:
    chance = "" if line.chance is None else f"{line.chance:.0f} %"
    bar = "report" if line.bar is None else f"{'<=' if line.below else '>='} {line.bar:.0f}"
    if line.name.startswith("control"):
        bar = f"<= {line.chance or 0:.0f} + {MARGIN_POINTS:.0f}"
    verdict = {True: "yes", False: "no", None: ""}[line.met]
    if line.name in COST_BARS:
        bar = f"<= {line.bar:g}"
        return line.name, "", bar, f"{line.value:.3g}", verdict, str(line.samples)
    unit = " points" if line.below and line.chance is None else " %"
    value = f"{line.value:.1f}{unit}" + (f" ({line.note})" if line.note else "")
    return line.name, chance, bar, value, verdict, str(line.samples)


RESULT_COLUMNS = ("what", "chance", "bar", "measured", "met", "samples")


def evaluation_table(lines: Sequence[ResultLine]) -> Table:
    table = Table(*RESULT_COLUMNS)
    for line in lines:
        table.add_row(*_cells(line))
    return table


def markdown(lines: Sequence[ResultLine]) -> str:
    rows = ["| " + " | ".join(RESULT_COLUMNS) + " |", "|---|--:|--:|---|---|--:|"]
    return "\n".join(rows + ["| " + " | ".join(_cells(line)) + " |" for line in lines]) + "\n"


def results_json(model: str, lines: Sequence[ResultLine], seed: int) -> str:
    """The figures with the machine, the versions and the commit beside them."""
    told = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    record = {
        "model": model,
        "seed": seed,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "commit": told.stdout.strip(),
        "rows": [asdict(line) for line in lines],
    }
    return json.dumps(record, indent=1)


def write_results(out: Path, model: str, lines: Sequence[ResultLine], seed: int) -> None:
    """results.json for programs, table.md for people."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(results_json(model, lines, seed))
    (out / "table.md").write_text(markdown(lines))
