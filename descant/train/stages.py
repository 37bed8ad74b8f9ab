"""Which task does what, and the runner of whole recipes: ``python -m descant.train RECIPE --all --lanes 2``."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from descant.errors import ConfigError, DescantError
from descant.train.loop import StageContext, Task, run_stage
from descant.train.recipe import Recipe, read_recipe

# task name of a recipe -> "module:name" under descant.train. The name is a Task class built from a Context, or a
# function of a Context that does its work at once (and, called again after a kill, goes on).
STAGE_TASKS = {
    "questions": "nano.questions:make_questions",
    "spoken": "nano.spoken:make_spoken",
    "ears": "tasks.hearing:make_ears",
    "features": "tasks.hearing:make_features",
    "letters": "tasks.hearing:LettersTask",
    "hearing": "tasks.encoders:HearingTask",
    "seeing": "tasks.encoders:SeeingTask",
    "thinker": "tasks.thinker:ThinkerTask",
    "speech": "nano.speech_data:make_speech",
    "codec": "tasks.codec:CodecTask",
    "vocoder": "tasks.vocoder:VocoderTask",
    "dit": "tasks.dit:DiTTask",
    "talker": "tasks.talker:TalkerTask",
    "assemble": "tasks.assemble:assemble",
}


def find_task(name: str) -> Callable[[StageContext], Task[object] | None]:
    if name not in STAGE_TASKS:
        raise ConfigError(f"unknown task {name!r}; known are {', '.join(STAGE_TASKS)}")
    module, attribute = STAGE_TASKS[name].split(":")
    found: Callable[[StageContext], Task[object] | None] = vars(importlib.import_module(f"descant.train.{module}"))[
        attribute
    ]
    return found


def is_finished(runs: Path, name: str) -> bool:
    return (runs / name / "final.json").exists()


def run_one(recipe: Recipe, name: str, runs: Path, stop_after: int | None = None) -> bool:
    """Runs one stage from wherever it stands; the stages it needs must be finished. Returns whether it is finished."""
    stage = recipe.stage(name)
    missing = [need for need in stage.needs if not is_finished(runs, need)]
    if missing:
        raise DescantError(f"stage {name!r} needs {', '.join(missing)} first: run it with --stage {missing[0]}")
    task = find_task(stage.task)(StageContext(recipe, stage, runs))
    return task is None or run_stage(task, stage, runs / name, stop_after)


def run_all(path: Path, runs: Path, lanes: int, threads: int = 1) -> None:
    """Runs every unfinished stage, each in a process of its own, ``lanes`` at a time, no two of one lane together."""
    recipe = read_recipe(path)
    waiting = [name for name in recipe.order() if not is_finished(runs, name)]
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        while waiting or running:
            busy = {recipe.stage(name).lane for name in running}
            for name in list(waiting):
                stage = recipe.stage(name)
                ready = all(is_finished(runs, need) for need in stage.needs)
                if ready and stage.lane not in busy and len(running) < lanes:
                    command = [sys.executable, "-m", "descant.train", str(path), "--stage", name, "--runs", str(runs)]
                    own = str(max(threads, stage.threads))
                    running[name] = subprocess.Popen([*command, "--threads", own])
                    busy.add(stage.lane)
                    waiting.remove(name)
            time.sleep(0.2)
            for name, process in list(running.items()):
                if process.poll() is not None:
                    del running[name]
                    if process.returncode != 0 or not is_finished(runs, name):
                        raise DescantError(
                            f"stage {name!r} failed; its messages are above. The same command goes on from there"
                        )
    finally:
        for process in running.values():
            process.terminate()
