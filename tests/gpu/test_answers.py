"""A whole small answer on a GPU is the CPU's: its text and codes in float32, its scores in bfloat16."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from descant.engine import graphs
from descant.engine.engine import Engine
from descant.engine.graphs import StepMode
from descant.engine.models import Models
from descant.engine.trace import trace_answer
from descant.nn.prepare import prepare
from descant.types import AudioChunk, Finished
from tests.engine import rig
from tests.engine.alone import stream
from tests.laws.test_engine import counts, finish, taken

FORCED = tuple(rig.TOKENIZER.encode("a little song"))


def moved(device: torch.device, dtype: torch.dtype) -> Models:
    """The rig's models elsewhere. The codec stays in float32, as it was trained."""
    models = rig.models()
    thinker, talker, token2wav = (copy.deepcopy(m) for m in (models.thinker, models.talker, models.token2wav))
    assert talker is not None and token2wav is not None
    thinker, talker = thinker.to(device, dtype), talker.to(device, dtype)
    for part in (thinker, talker):
        prepare(part)
    return replace(models, thinker=thinker, talker=talker, token2wav=token2wav.to(device))


@pytest.mark.parametrize("mode", ["off", "graphs"])
def test_answers_are_the_cpu_s(cuda: torch.device, mode: StepMode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "CAPTURE_AFTER", 1)
    models = moved(cuda, torch.float32)
    engine, voice = Engine(models, step_mode=mode), replace(rig.voice(), rows=rig.voice().rows.to(cuda))
    requests = [rig.request(f"user: {'hello ' * i}") for i in range(1, 6)]
    moved_requests = [replace(one, settings=replace(one.settings, voice=voice)) for one in requests]
    answers = [engine.submit(request) for request in moved_requests]
    finish(engine)
    for request, answer in zip(requests, answers, strict=True):
        given, wanted = taken(answer), list(stream(rig.models(), request))
        end, alone = given[-1], wanted[-1]
        assert isinstance(end, Finished) and isinstance(alone, Finished)
        assert (end.text, counts(end)) == (alone.text, counts(alone))
        for mine, theirs in zip(sound(given), sound(wanted), strict=True):
            torch.testing.assert_close(torch.from_numpy(mine), torch.from_numpy(theirs), rtol=1e-3, atol=1e-3)
    steps = engine.worker.stages.steps
    assert steps.thinker.mode == steps.talker.mode == mode
    assert engine.step_faults == ()  # nothing fell back


def sound(events: list[object]) -> list[object]:
    return [event.samples for event in events if isinstance(event, AudioChunk)]


def test_scores_in_bfloat16_stay_near(cuda: torch.device) -> None:
    request = rig.request(forced=FORCED, text=replace(rig.GREEDY, max_tokens=len(FORCED) + 1))
    voice = replace(rig.voice(), rows=rig.voice().rows.to(cuda))
    there = replace(request, settings=replace(request.settings, voice=voice))
    found = trace_answer(moved(cuda, torch.bfloat16), there)
    exact = trace_answer(moved(torch.device("cpu"), torch.float32), request)
    scale = float(exact["text_logits"].abs().max())
    torch.testing.assert_close(found["text_logits"], exact["text_logits"], rtol=0.05, atol=0.05 * scale)
    first = exact["talker_logits"][:1]  # later ones follow from codes, and those from the last bit
    torch.testing.assert_close(found["talker_logits"][:1], first, rtol=0.05, atol=0.05 * float(first.abs().max()))


def test_sessions_of_captured_steps_draw_their_own(cuda: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds belong to sessions on a GPU as well, whoever is in the batch."""
    monkeypatch.setattr(graphs, "CAPTURE_AFTER", 1)
    models = moved(cuda, torch.float32)
    hot = replace(rig.GREEDY, temperature=1.0)
    requests = [rig.request("user: hi", text=hot, voice=None, seed=seed) for seed in (1, 1, 2, 3)]
    engine = Engine(models, step_mode="graphs")
    answers = [engine.submit(request) for request in requests]
    finish(engine)
    ends = [taken(answer)[-1] for answer in answers]
    texts = [end.text for end in ends if isinstance(end, Finished)]
    assert texts[0] == texts[1] and len(set(texts)) > 1
