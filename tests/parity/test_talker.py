"""The Talker against the reference: its rows, its logits, step by step and all at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from descant.model import talker as ours
from descant.train import teacher
from tests.decoding import KVCache, sequential_positions
from tests.filled import media_mask
from tests.parity.conversations import TALKS, for_reference, our_prompt, reference_positions
from tests.parity.reference import BROKEN, IDS, SPEAKER, TOLERANCE, Pair, relative, talker_pair, thinker_pair

REPLY = (5, 17, 33, 41)  # y1..y4, each read back by the Thinker; the stop token after them has no row
DRAWN = torch.tensor([3, 60, 8, 41, 77, 12, 9, 33])  # codes; longer than the reply, so that the tail is used
THINKER = thinker_pair()


@pytest.fixture(scope="module", params=["7b", "3b"])
def pair(request: pytest.FixtureRequest) -> Pair:
    return talker_pair(request.param)


def listen(case: str) -> tuple[dict[str, Any], Tensor, Tensor, Tensor, Tensor]:
    """The reference Thinker reads a conversation and its reply: inputs, e and h of the prompt, e and h of the reply."""
    inputs = for_reference([TALKS[case]])
    length = inputs["input_ids"].shape[1]
    reply = torch.tensor([REPLY])
    with torch.no_grad():
        positions = reference_positions(THINKER.reference.model, inputs)
        prompt = THINKER.ours.embed([our_prompt(TALKS[case], positions[:, 0])])[0][None]
        embeds = torch.cat((prompt, THINKER.ours.embed_tokens(reply)), dim=1)
        after = sequential_positions(1, int(positions.max()) + 1, len(REPLY))
        states = THINKER.reference.model.language_model(
            inputs_embeds=embeds, position_ids=torch.cat((positions, after), dim=-1), output_hidden_states=True
        ).hidden_states
    read, hidden = states[0][0], states[-1][0]
    return inputs, read[:length], hidden[:length], read[length:], hidden[length:]


def reference_logits(pair: Pair, case: str) -> Tensor:
    """The construction of the reference's generate, then its Talker's prefill and steps: logits (1 + len(DRAWN), C)."""
    inputs, read, hidden, reply_read, reply_hidden = listen(case)
    talker, table = pair.reference, THINKER.reference.get_input_embeddings()
    media = media_mask(inputs["input_ids"][0], IDS)
    prompt = hidden + torch.where(media[:, None], torch.zeros_like(read), read)
    stream = torch.cat((reply_read + reply_hidden, table(torch.tensor([talker.text_eos_token, talker.text_pad_token]))))
    ids = torch.cat((inputs["input_ids"], torch.tensor([[SPEAKER, REPLY[0]]])), dim=1)
    mask = torch.ones_like(ids)
    heard = inputs.get("feature_attention_mask")
    out = talker(
        inputs_embeds=torch.cat((prompt, table(torch.tensor([SPEAKER])), stream[:1]))[None],
        input_text_ids=ids,
        attention_mask=mask,
        thinker_reply_part=stream[1:][None],
        image_grid_thw=inputs.get("image_grid_thw"),
        video_grid_thw=inputs.get("video_grid_thw"),
        use_audio_in_video=inputs["use_audio_in_video"],
        audio_feature_lengths=None if heard is None else heard.sum(1),
        video_second_per_grid=inputs.get("video_second_per_grid"),
        use_cache=True,
    )
    logits = [out.logits[0, -1]]
    for code in DRAWN:
        mask = torch.cat((mask, torch.ones(1, 1, dtype=torch.long)), dim=1)
        out = talker(
            input_ids=code.view(1, 1),
            attention_mask=mask,
            thinker_reply_part=out.thinker_reply_part,
            past_key_values=out.past_key_values,
            use_cache=True,
        )
        logits.append(out.logits[0, -1])
    return torch.stack(logits)


def our_positions(case: str) -> Tensor:
    """Ids of the prompt, then sequential for ever: speaker, first, steps; (3, 1, P + 2 + len(DRAWN))."""
    positions = reference_positions(THINKER.reference.model, for_reference([TALKS[case]]))
    return torch.cat((positions, sequential_positions(1, int(positions.max()) + 1, 2 + len(DRAWN))), dim=-1)


def our_rows(pair: Pair, case: str) -> tuple[Tensor, Tensor]:
    """opening (P + 2, E) and stream (len(DRAWN), E)."""
    inputs, read, hidden, reply_read, reply_hidden = listen(case)
    prompt = ours.prompt_rows(read, hidden, media_mask(inputs["input_ids"][0], IDS))
    reply = ours.reply_rows(reply_read, reply_hidden)
    bos = THINKER.ours.embed_tokens(torch.tensor(SPEAKER))
    opening = teacher.opening_rows(pair.ours, prompt, bos, reply[0])
    return opening, teacher.text_stream(reply, ours.tail_rows(THINKER.ours, pair.ours.cfg), len(DRAWN))


def stepped(pair: Pair, case: str) -> Tensor:
    """As the engine does it: prefill, then one row per code."""
    opening, stream = our_rows(pair, case)
    positions, cache = our_positions(case), KVCache.empty(pair.ours.cfg.decoder.num_hidden_layers)
    logits = pair.ours(opening[None], positions[..., : len(opening)], cache)
    found = [logits[0, -1]]
    for k, code in enumerate(DRAWN):
        row = ours.step_row(pair.ours, code, stream[k])
        logits = pair.ours(row[None, None], positions[..., cache.length : cache.length + 1], cache)
        found.append(logits[0, -1])
    return torch.stack(found)


def at_once(pair: Pair, case: str) -> Tensor:
    """As the trainer does it: every row in one pass. The last code drawn is fed, so one more is appended to predict."""
    opening, stream = our_rows(pair, case)
    codes = torch.cat((DRAWN, torch.tensor([pair.ours.cfg.codec_end_id])))
    rows = teacher.teacher_rows(pair.ours, opening, stream, codes)
    logits = pair.ours(rows[None], our_positions(case))
    return logits[0, len(opening) - 1 :]


@pytest.mark.parametrize("case", ["text", "all mixed", "video, sound longer"])
@pytest.mark.parametrize("how", [stepped, at_once])
@torch.no_grad()
def test_parity(
    pair: Pair, case: str, how: Callable[[Pair, str], Tensor], record: Callable[[str, str, float], None]
) -> None:
    worst = relative(how(pair, case), reference_logits(pair, case))
    record("talker", f"{case}, heads {pair.ours.decoder.cfg.num_attention_heads}, {how.__name__}", worst)
    assert worst < TOLERANCE


BREAKS: dict[str, tuple[str, Any]] = {
    "media kept in e": ("prompt_rows", lambda read, hidden, media: read + hidden),
    "no pad under the speaker": ("speaker_row", lambda talker, bos: bos),
    "no start under the first row": ("first_row", lambda talker, row: row),
    "the stream starts at y1": (
        "text_stream",
        lambda reply, tail, steps: torch.cat((reply, tail, tail[-1:].expand(steps, -1)))[:steps],
    ),
    "no text end": (
        "text_stream",
        lambda reply, tail, steps: torch.cat((reply[1:], tail[-1:].expand(steps, -1)))[:steps],
    ),
}


@pytest.mark.parametrize("name", BREAKS)
@torch.no_grad()
def test_a_broken_formula_is_seen(pair: Pair, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attribute, broken = BREAKS[name]
    expected = reference_logits(pair, "all mixed")
    for module in (ours, teacher):
        if attribute in vars(module):
            monkeypatch.setattr(module, attribute, broken)
    assert relative(stepped(pair, "all mixed"), expected) > BROKEN
