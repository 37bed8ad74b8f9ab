"""The embeddings of a prompt or a live turn are the same whether they are read at once or in any chunks."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import descant
from descant.config import InputsConfig
from descant.engine import context as engine_context
from descant.engine.context import Context
from descant.engine.prefill import Chunk, embed_chunks, encode_media
from descant.inputs.prompt import PromptBuilder
from descant.inputs.turn import LiveTurn, TurnFormatter
from descant.tokens import MediaSpan, PromptTokens, concatenate, filled_rows, unchanged
from descant.types import Audio, Clip, Image, Text, Video, assistant, user
from tests.engine import rig
from tests.engine.alone import stages_for
from tests.inputs import media

MODELS = rig.models()
THINKER = MODELS.thinker
INPUTS = InputsConfig(feature_size=8, video_min_pixels=3136, video_max_pixels=3136)
FORMATTER = TurnFormatter(PromptBuilder(rig.TOKENIZER, INPUTS, THINKER.cfg))
FRAMES = media.grey_frames([1, 90, 180, 250, 30], 56, 56)
CLIP = Clip(FRAMES, 2.0, media.noise(45000))
PROMPT = FORMATTER.builder.build(
    [
        user("see ", Image(media.picture(56, 84)), " hear ", Audio(media.noise(50000), 16000)),
        assistant("a noise"),
        user(Video(CLIP, use_audio=True), Image(media.picture(84, 56)), Video(Clip(FRAMES, 2.0)), "and now?"),
    ],
    speech=True,
)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def context() -> Context:
    return stages_for(MODELS).new_context(speech=False)


def embeds(reader: Context, start: int, stop: int) -> Tensor:
    """The embeddings of the tokens start .. stop - 1 as a pass that reads them makes them, (stop - start, D)."""
    chunk = Chunk(reader, start, stop)
    chunk.keep_features(encode_media(MODELS, [chunk])[0])
    rows = embed_chunks(THINKER, [chunk])
    reader.forget_features(stop)
    return rows


def chunked(tokens: PromptTokens, rng: random.Random) -> Tensor:
    """The embeddings (T, D) of all tokens, read in random chunks."""
    reader, start, parts = context(), 0, list[Tensor]()
    reader.set_tokens(tokens)
    while start < len(tokens):
        stop = min(len(tokens), start + rng.randrange(1, 60))
        parts.append(embeds(reader, start, stop))
        start = stop
    assert not reader.encoded
    return torch.cat(parts)


@pytest.mark.parametrize("seed", range(6))
def test_a_prompt_in_chunks_is_the_prompt_at_once(seed: int) -> None:
    [whole] = THINKER.embed([PROMPT])
    torch.testing.assert_close(chunked(PROMPT, random.Random(seed)), whole, atol=1e-5, rtol=1e-5)


def pushes(turn: LiveTurn) -> Iterator[None]:
    """A turn with everything in it, push by push."""
    turn.add([Text("look: "), Image(media.picture(56, 56))])
    samples = media.noise(70000) * np.float32(0.01)
    samples[60000:] *= 100  # a louder moment late changes what was heard before it
    for place, piece in enumerate(np.split(samples, 14)):
        turn.push_audio(piece, 16000)
        if place % 2 and place < 10:
            turn.push_frame(FRAMES[place // 2], at=place / 4)
        yield
    turn.add([Text("what is it?")])


@pytest.mark.parametrize("seed", range(4))
def test_a_live_turn_in_chunks_is_the_turn_at_once(seed: int) -> None:
    """What was read early is read again exactly where ``unchanged`` says so."""
    rng, turn, reader = random.Random(seed), FORMATTER.turn(), context()
    rows, before = torch.empty(0, THINKER.cfg.text.hidden_size), reader.tokens

    def look(tokens: PromptTokens) -> None:
        nonlocal rows, before
        kept = min(len(rows), unchanged(before, tokens))
        reader.set_tokens(tokens)
        before, rows = tokens, rows[:kept]
        while len(rows) < len(tokens) and rng.random() < 0.8:
            stop = min(len(tokens), len(rows) + rng.randrange(1, 60))
            rows = torch.cat([rows, embeds(reader, len(rows), stop)])

    for _ in pushes(turn):
        if rng.random() < 0.6:
            look(concatenate([FORMATTER.system("be kind", speech=True), turn.tokens(settled=rng.random() < 0.5)]))
    made = concatenate([FORMATTER.system("be kind", speech=True), turn.finish()])
    while len(rows) < len(made):
        look(made)
    torch.testing.assert_close(rows, THINKER.embed([made])[0], atol=1e-5, rtol=1e-5)


def from_the_start(
    spans: Sequence[MediaSpan], features: Sequence[Tensor], start: int, stop: int
) -> tuple[list[Tensor], list[Tensor]]:
    """A fault: each chunk takes the features of a span from its first one again."""
    places, rows = filled_rows(spans, features, start, stop)
    return places, [given[: len(right)] for given, right in zip(features, rows, strict=True)]


def test_the_law_sees_features_that_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    [whole] = THINKER.embed([PROMPT])
    monkeypatch.setattr(engine_context, "filled_rows", from_the_start)
    assert not torch.allclose(chunked(PROMPT, random.Random(0)), whole, atol=1e-3)


def test_nothing_searches_for_placeholders() -> None:
    """The ids of placeholders are written where tokens are laid out, and read where weights files are."""
    package = Path(descant.__file__).parent
    searching = [
        str(path.relative_to(package))
        for path in sorted(package.rglob("*.py"))
        if any(f"== {name}" in path.read_text() for name in ("ids.audio", "ids.image", "ids.video", "media.audio"))
    ]
    assert not searching
