"""Packed == alone: prompts that are read in one pass leave in the caches what each leaves when it is read by itself."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from descant.engine.session import Session
from descant.engine.stages import Stages
from descant.nn import attention, pages
from descant.nn.pages import PackedBatch, PageTable
from tests.engine import rig
from tests.engine.alone import stages_for
from tests.laws.test_live import same_pasts
from tests.laws.test_pages import CFG, Reader, body, rows, step, store
from tests.laws.test_tokens import MODELS, PROMPT

__all__ = ["body"]


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def pack(body: Any, readers: Sequence[Reader], sizes: Sequence[int], rng: random.Random) -> None:
    """One pass that reads ``sizes`` new tokens of each reader."""
    fresh = [rows(size, rng) for size in sizes]
    at = [torch.arange(r.table.length, r.table.length + n).expand(3, -1) for r, n in zip(readers, sizes, strict=True)]
    batch = PackedBatch([reader.table for reader in readers], sizes)
    hidden = body(torch.cat(fresh)[None], torch.cat(at, dim=1)[:, None], batch)[0]
    batch.advance()
    for reader, x, out in zip(readers, fresh, hidden.split(list(sizes)), strict=True):
        reader.past = torch.cat((reader.past, x))
        reader.check(body, out)


def walk(body: Any, seed: int) -> None:
    rng = random.Random(seed)
    kept = store(size=rng.choice([1, 3, 4, 16]))
    readers = [Reader(PageTable(kept), torch.empty(0, CFG.hidden_size)) for _ in range(5)]
    for _ in range(12):
        some = rng.sample(readers, rng.randrange(1, len(readers) + 1))
        pack(body, some, [rng.randrange(1, 9) for _ in some], rng)
        read = [reader for reader in readers if reader.table.length]
        step(body, rng.sample(read, rng.randrange(1, len(read) + 1)), rng)
        reader = rng.choice(read)
        reader.table.truncate(length := rng.randrange(reader.table.length + 1))
        reader.past = reader.past[:length]
        kept.check([reader.table for reader in readers])


@pytest.mark.parametrize("seed", range(30))
def test_any_packs_read_as_if_alone(body: Any, seed: int) -> None:
    walk(body, seed)


def by_borders(
    q: Tensor, k: Tensor, v: Tensor, ends: Tensor, ends_k: Tensor, longest: int, longest_k: int, **options: Any
) -> Tensor:
    """What the kernel computes: causal attention of each sequence's new tokens, aligned at the end of its past."""
    assert options == {"window_size": (-1, 0), "enable_gqa": True}
    assert ends.dtype is ends_k.dtype is torch.int32
    assert (longest, longest_k) == (int(ends.diff().max()), int(ends_k.diff().max()))
    outs = []
    for (a, b), (c, d) in zip(pairwise(ends.tolist()), pairwise(ends_k.tolist()), strict=True):
        mask = torch.ones(b - a, d - c, dtype=torch.bool).tril(d - c - (b - a))
        parts = (x.transpose(0, 1)[None] for x in (q[a:b], k[c:d], v[c:d]))
        out = torch.nn.functional.scaled_dot_product_attention(*parts, attn_mask=mask, enable_gqa=True)
        outs.append(out[0].transpose(0, 1))
    return torch.cat(outs)


@pytest.mark.parametrize("seed", range(6))
def test_one_kernel_is_given_the_same_sequences(body: Any, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[tuple[str, ...]]()
    monkeypatch.setattr(attention, "can_varlen", lambda device, dtype, dim: True)
    monkeypatch.setattr(attention, "varlen_attention", lambda *options: asked.append(options) or by_borders)
    walk(body, seed)
    assert asked


def test_an_older_torch_has_no_kernel_for_it() -> None:
    assert attention.varlen_attention("an option that nobody knows") is None
    assert pages.packed_kernel(torch.device("cpu"), torch.bfloat16, 64) is None


def opened(stages: Stages, count: int) -> list[Session]:
    """Sessions with all media, with text alone, spoken and not."""
    sessions = []
    for number in range(count):
        mute = {"voice": None} if number % 3 == 1 else {}
        media = {"prompt": PROMPT} if number % 4 == 0 else {}
        sessions.append(stages.open(rig.request(f"number {number} " * (1 + number), seed=number, **mute, **media)))
    return sessions


@pytest.mark.parametrize("seed", range(5))
def test_prompts_in_random_packs_are_prompts_read_alone(seed: int) -> None:
    rng, stages = random.Random(seed), stages_for(MODELS)
    sessions = opened(stages, 6)
    while waiting := [session for session in sessions if session.context.unread]:
        some = rng.sample(waiting, rng.randrange(1, len(waiting) + 1))
        stages.read({session: rng.randrange(1, 90) for session in some})
        assert not any(session.error for session in sessions)
    for session in sessions:
        if session.speech is not None:  # behind the prompt, the speaker's row
            session.speech.kv.truncate(session.speech.kv.length - 1)
        same_pasts(session.context, session.context.tokens)
        assert not session.context.encoded
        alone = stages_for(MODELS)
        wanted = alone.open(rig.request(voice=None, prompt=session.context.tokens))
        alone.read({wanted: wanted.context.unread})
        torch.testing.assert_close(session.text.logits, wanted.text.logits, rtol=1e-4, atol=1e-4)


def test_one_pass_of_each_model_reads_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = stages_for(MODELS)
    passes = dict[str, int]()
    parts = {"thinker": MODELS.thinker.decoder, "talker": MODELS.talker.decoder, "audio": MODELS.thinker.audio,
             "vision": MODELS.thinker.vision}  # fmt: skip
    for name, part in parts.items():
        whole = part.forward

        def counted(*given: Any, name: str = name, whole: Any = whole) -> Any:
            passes[name] = passes.get(name, 0) + 1
            return whole(*given)

        monkeypatch.setattr(part, "forward", counted)
    sessions = opened(stages, 6)
    stages.read({session: session.context.unread for session in sessions})
    assert passes == dict.fromkeys(parts, 1)
    assert not any(session.context.unread for session in sessions)
