"""A seed draws on a GPU what it draws on the CPU, and a warm engine answers without capturing anything more."""

from __future__ import annotations

import pytest
import torch

from descant.engine import graphs
from descant.engine.draws import DrawTable
from descant.engine.engine import Engine
from descant.engine.sampling import Sampler
from descant.types import Sampling
from tests.engine import rig
from tests.gpu.test_answers import moved
from tests.laws.test_engine import finish

HOWS = (Sampling(), Sampling(0.7), Sampling(0.9, 40, 0.8, 1.05), Sampling(1.2, top_p=0.7))
VOCAB = 8448


def test_a_seed_draws_the_same_on_a_gpu(cuda: torch.device) -> None:
    logits = 3 * torch.randn(len(HOWS), VOCAB, generator=torch.Generator().manual_seed(1))
    found = []
    for device in (torch.device("cpu"), cuda):
        table, ids = DrawTable(VOCAB, device, 8), []
        streams = [Sampler(how, seed=seed, prompt=torch.arange(5), banned=(7,)) for seed, how in enumerate(HOWS)]
        for _ in range(50):
            drawn = table.draw(streams, logits.to(device)).tolist()
            ids.append(drawn)
            for stream, index in zip(streams, drawn, strict=True):
                stream.keep(index)
        found.append(torch.tensor(ids))
    assert (found[0] == found[1]).float().mean() > 0.99  # a logarithm's last bit may decide a race


def test_a_warm_engine_captures_nothing_more(cuda: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(moved(cuda, torch.float32), step_mode="graphs")
    engine.worker.stages.regions.mode = "off"
    left = list(engine.warm_up())
    assert left[-1] == 0 and engine.step_faults == ()
    monkeypatch.setattr(graphs, "captured", None)  # whoever captures now fails
    monkeypatch.setattr(graphs, "STEP_COMPILERS", {})
    answers = [engine.submit(rig.request(f"user: {n}", voice=None)) for n in range(3)]
    finish(engine)
    assert engine.step_faults == () and all(answer.record.over for answer in answers)
