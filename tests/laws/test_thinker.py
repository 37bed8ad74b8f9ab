"""Thinker and Talker as wholes: prompts together == alone, streamed == whole, gradients, half precision, the rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from descant.config import AudioConfig, DecoderConfig, MediaIds, TalkerConfig, ThinkerConfig, VisionConfig
from descant.errors import SessionError
from descant.model.talker import Talker, prompt_rows, reply_rows, tail_rows
from descant.model.thinker import Thinker
from descant.tokens import PixelGrid, PromptTokens
from descant.train.teacher import opening_rows, teacher_rows, text_stream
from tests.decoding import KVCache
from tests.filled import found_tokens

IDS = MediaIds(30, 31, 32, 33, 34, 35, 36)
TEXT = DecoderConfig(40, 24, 24, 48, 2, 4, 2, 8, (1, 1, 2), rope_theta=1e4)
THINKER = ThinkerConfig(
    TEXT,
    AudioConfig(8, 2, 2, 16, 32, 24, n_window=10),
    VisionConfig(2, 16, 2, 24, 24, (1,), patch_size=2, window_size=16),
    IDS,
    pad_id=0,
    eos_id=1,
)
TALKER = TalkerConfig(DecoderConfig(50, 24, 16, 32, 2, 3, 1, 8, (2, 2, 0)), IDS, 38, 37, 45, 46, 44, 47)


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def prompt(
    seed: int, frames: int = 0, grid: tuple[int, int, int] | None = None, *, video: bool = False
) -> PromptTokens:
    ids = [2, 3, 4]
    audio = (noise(8, frames, seed=seed),) if frames else ()
    ids += [IDS.audio] * ((frames + 1) // 2 // 2) + [5]
    pictures: tuple[PixelGrid, ...] = ()
    if grid is not None:
        t, h, w = grid
        pictures = (PixelGrid(noise(t * h * w, 24, seed=seed), grid),)
        ids += [IDS.video if video else IDS.image] * (t * h * w // 4) + [6, 7]
    positions = torch.arange(len(ids)).expand(3, -1)
    seen = {"videos" if video else "images": pictures}
    return found_tokens(torch.tensor(ids), positions, IDS, audio=audio, **seen)


PROMPTS = (
    prompt(1),
    prompt(2, frames=33),
    prompt(3, grid=(1, 4, 6)),
    prompt(4, frames=61, grid=(2, 4, 4), video=True),
    prompt(5, frames=20, grid=(1, 2, 2)),
)


@pytest.fixture(scope="module")
def mind() -> Thinker:
    torch.manual_seed(0)
    return Thinker(THINKER).eval()


@pytest.fixture(scope="module")
def mouth() -> Talker:
    torch.manual_seed(1)
    return Talker(TALKER).eval()


@torch.no_grad()
def test_prompts_together_are_prompts_alone(mind: Thinker) -> None:
    for one, rows in zip(PROMPTS, mind.embed(PROMPTS), strict=True):
        torch.testing.assert_close(rows, mind.embed([one])[0], rtol=1e-5, atol=1e-5)
        text = ~one.filled()
        assert torch.equal(rows[text], mind.embed_tokens(one.ids)[text])


@torch.no_grad()
def test_media_that_arrive_in_blocks_give_the_same_prefill(mind: Thinker) -> None:
    """Sound encoded block by block and prefilled at once as it arrives, against the whole prompt."""
    one = PROMPTS[1]
    whole = mind(mind.embed([one])[0][None], one.positions[:, None])
    cache, start, parts = KVCache.empty(TEXT.num_hidden_layers), 0, []
    [span] = one.spans
    assert isinstance(span.source.content, Tensor)
    blocks = span.source.content.split(THINKER.audio.block_frames, dim=1)
    arriving = [torch.empty(0, 24), *(mind.audio([block])[0] for block in blocks)]
    for count, rows in zip([3, 5, 3], arriving, strict=True):  # 3 text tokens; 5 and 3 of sound, the rest is text
        embeds = rows if len(rows) else mind.embed_tokens(one.ids[start : start + count])
        hidden = mind(embeds[None], one.positions[:, None, start : start + count], cache)
        parts.append(hidden)
        start += count
    parts.append(mind(mind.embed_tokens(one.ids[start:])[None], one.positions[:, None, start:], cache))
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-5, atol=1e-5)


def test_gradients_reach_encoders_and_decoder(mind: Thinker, mouth: Talker) -> None:
    rows = mind.embed(PROMPTS)[3]
    one = PROMPTS[3]
    hidden = mind(rows[None], one.positions[:, None])
    opening = opening_rows(mouth, prompt_rows(rows, hidden[0], one.filled()), rows[0], hidden[0, -1])
    codes = torch.tensor([3, 9, TALKER.codec_end_id])
    stream = text_stream(reply_rows(rows[-2:], hidden[0, -2:]), tail_rows(mind, TALKER), 2)
    spoken = teacher_rows(mouth, opening, stream, codes)
    logits = mouth(spoken[None], torch.arange(len(spoken)).expand(3, 1, -1))
    loss = logits.square().mean() + mind.logits(hidden).square().mean()
    loss.backward()
    for name, weight in [*mind.named_parameters(), *mouth.named_parameters()]:
        assert "audio_bos_eos" in name or (weight.grad is not None and weight.grad.isfinite().all()), name
    assert (mind.audio.conv1.weight.grad != 0).any() and (mind.vision.patch_embed.proj.weight.grad != 0).any()
    mind.zero_grad()
    mouth.zero_grad()


def test_the_text_stream_ends_once_and_pads_for_ever() -> None:
    reply, tail = torch.arange(3.0)[:, None], torch.tensor([[10.0], [20.0]])
    assert text_stream(reply, tail, 6).flatten().tolist() == [1, 2, 10, 20, 20, 20]
    assert text_stream(reply, tail, 2).flatten().tolist() == [1, 2]
    assert text_stream(reply[:1], tail, 3).flatten().tolist() == [10, 20, 20]
    assert text_stream(reply, tail, 0).shape == (0, 1)


def test_prompt_rows_keep_h_and_drop_e_at_media() -> None:
    rows = prompt_rows(torch.tensor([[1.0], [2.0]]), torch.tensor([[10.0], [20.0]]), torch.tensor([False, True]))
    assert rows.flatten().tolist() == [11.0, 20.0]


def test_patches_that_do_not_make_their_grid_are_refused(mind: Thinker) -> None:
    whole = PROMPTS[2].spans[0].source.content
    assert isinstance(whole, PixelGrid)
    wrong = PixelGrid(whole.patches[:-1], whole.grid)
    with pytest.raises(SessionError, match="23 patches"):
        mind.see([wrong])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_stays_near(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    mind, mouth = Thinker(THINKER).eval(), Talker(TALKER).eval()
    one = PROMPTS[3]

    def answer() -> tuple[Tensor, Tensor]:
        [rows] = mind.embed([one])
        hidden = mind(rows[None], one.positions[:, None], KVCache.empty(TEXT.num_hidden_layers))
        spoken = prompt_rows(rows, hidden[0], one.filled())
        return mind.logits(hidden), mouth(spoken[None], one.positions[:, None])

    expected = answer()
    mind.to(dtype)
    mouth.to(dtype)
    for ours, whole in zip(answer(), expected, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, whole, rtol=0.1, atol=0.1)
