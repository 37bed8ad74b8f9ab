"""The whole Thinker against the reference: what it reads, its hidden rows and its logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from descant.config import ThinkerConfig
from descant.errors import SessionError
from descant.model import thinker
from descant.tokens import MediaSpan, PromptTokens
from tests.parity.conversations import BATCH, TALKS, Talk, for_reference, our_prompt, reference_positions
from tests.parity.reference import BROKEN, TOLERANCE, Pair, relative, thinker_pair

Record = Callable[[str, str, float], None]


@pytest.fixture(scope="module", params=["7b untied", "3b tied"])
def pair(request: pytest.FixtureRequest) -> Pair:
    shape, ties = request.param.split()
    return thinker_pair(shape, tied=ties == "tied")


def run(pair: Pair, talks: list[Talk]) -> tuple[Tensor, Tensor]:
    """Logits of both, real tokens only."""
    inputs = for_reference(talks)
    mask = inputs["attention_mask"].bool()
    with torch.no_grad():
        expected = pair.reference(**inputs).logits
        positions = reference_positions(pair.reference.model, inputs)
        prompts = [our_prompt(talk, positions[:, i, mask[i]]) for i, talk in enumerate(talks)]
        rows = pad_sequence(pair.ours.embed(prompts), batch_first=True, padding_side="left")
        hidden = pair.ours(rows, positions, None, None if mask.all() else mask)
        logits = pair.ours.logits(hidden)
    return logits[mask], expected[mask]


@pytest.mark.parametrize("case", TALKS)
def test_parity(pair: Pair, case: str, record: Record) -> None:
    worst = relative(*run(pair, [TALKS[case]]))
    record("thinker", f"{case}, {'tied' if pair.ours.lm_head is None else 'untied'}", worst)
    assert worst < TOLERANCE


def test_a_padded_batch(pair: Pair, record: Record) -> None:
    worst = relative(*run(pair, [TALKS[case] for case in BATCH]))
    record("thinker", f"padded batch, {'tied' if pair.ours.lm_head is None else 'untied'}", worst)
    assert worst < TOLERANCE


def test_the_rows_that_the_talker_reads(record: Record) -> None:
    pair = thinker_pair()
    inputs = for_reference([TALKS["all mixed"]])
    with torch.no_grad():
        states = pair.reference(**inputs, output_hidden_states=True).hidden_states
        positions = reference_positions(pair.reference.model, inputs)
        prompt = our_prompt(TALKS["all mixed"], positions[:, 0])
        read = pair.ours.embed([prompt])[0][None]
        hidden = pair.ours(read, positions)
    worst = max(relative(read, states[0]), relative(hidden, states[-1]))
    record("thinker", "rows for the talker", worst)
    assert worst < TOLERANCE


def _swapped(self: thinker.Thinker, prompts: list[PromptTokens]) -> list[Tensor]:
    """The features of the two sounds at each other's tokens."""

    def swap(prompt: PromptTokens) -> PromptTokens:
        heard = [span for span in prompt.spans if span.source.kind == "audio"]
        places = torch.cat([span.indices for span in heard])
        spans = [span for span in prompt.spans if span.source.kind != "audio"]
        for span in heard[::-1]:
            spans.append(MediaSpan(places[: span.source.tokens], span.source))
            places = places[span.source.tokens :]
        return replace(prompt, spans=tuple(spans))

    return _embed(self, [swap(prompt) for prompt in prompts])


_embed = thinker.Thinker.embed


def test_clips_in_the_wrong_order_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thinker.Thinker, "embed", _swapped)
    talk = TALKS["all mixed"]
    assert relative(*run(thinker_pair(), [talk])) > BROKEN


def test_a_missing_mask_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = thinker_pair()
    whole = pair.ours.decoder.forward
    monkeypatch.setattr(pair.ours.decoder, "forward", lambda x, positions, cache, mask: whole(x, positions, cache))
    assert relative(*run(pair, [TALKS[case] for case in BATCH])) > BROKEN


def test_media_that_make_other_tokens_are_refused() -> None:
    pair = thinker_pair()
    prompt = our_prompt(TALKS["audio 2 s"], torch.zeros(3, len(TALKS["audio 2 s"].ids), dtype=torch.long))
    wrong = replace(prompt.spans[0], source=replace(prompt.spans[0].source, tokens=49))
    with pytest.raises(SessionError, match="audio encoder gave 50 rows for 49 tokens"):
        pair.ours.embed([replace(prompt, spans=(wrong,))])


def test_a_tied_head_is_the_embedding_table() -> None:
    tied = thinker_pair(tied=True).ours
    cfg: ThinkerConfig = tied.cfg
    rows = torch.randn(3, cfg.text.hidden_size)
    assert "lm_head.weight" not in tied.state_dict()
    torch.testing.assert_close(tied.logits(rows), rows @ tied.decoder.embed_tokens.weight.T)
