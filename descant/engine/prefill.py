"""Reading prompts: the next tokens of several contexts in one pass of each model.

They lie one context's after another's in one row, without padding (``PackedBatch``), so that eight short questions cost
little more than one. Nothing here moves a context: who calls commits what was computed, context by context.

Axes: T tokens of all chunks, D the Thinker's width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from descant.engine.context import Context
from descant.engine.models import Models
from descant.model.talker import Talker, prompt_rows
from descant.model.thinker import Thinker
from descant.nn.pages import PackedBatch, PageTable
from descant.tokens import EncoderInput, MediaSpan


@dataclass(frozen=True)
class Chunk:
    """The tokens start .. stop - 1 of a context, which come next. speaker (E,): the row that the Talker reads behind
    them (None: they do not end a prompt that is answered by voice)."""

    context: Context
    start: int
    stop: int
    speaker: Tensor | None = None

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def unseen(self) -> list[MediaSpan]:
        """The media in it that no encoder has seen yet."""
        return self.context.unseen(self.start, self.stop)

    def keep_features(self, features: Sequence[Tensor]) -> None:
        """Keep what the encoders gave for ``unseen``."""
        self.context.keep_features(self.unseen, features)

    def keep(self) -> None:
        """Count its tokens: the pass is through."""
        for table in self.context.tables:
            table.advance(len(self))
        if self.speaker is not None and self.context.talker_kv is not None:
            self.context.talker_kv.advance(1)
        self.context.forget_features(self.stop)


def next_chunk(context: Context, room: int) -> Chunk:
    """At most ``room`` tokens that the Thinker has not read."""
    start = context.thinker_kv.length
    return Chunk(context, start, min(start + room, len(context.tokens)))


def encode(models: Models, sources: Sequence[EncoderInput]) -> list[Tensor]:
    """The features of each input, in one pass of each encoder; one whose weights wait on the host is fetched for it."""
    kinds = {source.kind for source in sources}
    with ExitStack() as stack:
        for module in {module for kind, module in models.offloaded.items() if kind in kinds}:
            stack.enter_context(module.on_device())
        return models.thinker.encode(sources)


def encode_media(models: Models, chunks: Sequence[Chunk]) -> list[list[Tensor]]:
    """The features of each chunk's unseen media, all in one pass of each encoder."""
    unseen = [chunk.unseen for chunk in chunks]
    features = iter(encode(models, [span.source for spans in unseen for span in spans]))
    return [[next(features) for _ in spans] for spans in unseen]


def embed_chunks(thinker: Thinker, chunks: Sequence[Chunk]) -> Tensor:
    """The Thinker's input, (T, D): embeddings, with features where media are. All media have been encoded."""
    ids = torch.cat([chunk.context.tokens.ids[chunk.start : chunk.stop] for chunk in chunks])
    embeds = thinker.embed_tokens(ids.to(thinker.device))
    indices, rows = list[Tensor](), list[Tensor]()
    for offset, chunk in zip(accumulate(map(len, chunks), initial=0), chunks):
        places, filled = chunk.context.filled_rows(chunk.start, chunk.stop)
        indices += [place + offset for place in places]
        rows += filled
    if not rows:
        return embeds
    return embeds.index_copy(0, torch.cat(indices).to(embeds.device), torch.cat(rows).to(embeds.dtype))


def read_chunks(thinker: Thinker, talker: Talker | None, chunks: Sequence[Chunk]) -> list[Tensor]:
    """One pass of the Thinker over all chunks, and one of the Talker over those that are spoken of.

    Returns the Thinker's hidden state (D,) at the last token of each chunk.
    """
    embeds = embed_chunks(thinker, chunks)[None]
    tokens = [chunk.context.tokens for chunk in chunks]
    spread = [one.positions[:, chunk.start : chunk.stop] for one, chunk in zip(tokens, chunks, strict=True)]
    positions = torch.cat(spread, dim=1)[:, None].to(thinker.device)
    sizes = [len(chunk) for chunk in chunks]
    hidden = thinker(embeds, positions, PackedBatch([chunk.context.thinker_kv for chunk in chunks], sizes))
    if talker is not None:
        follow_chunks(talker, chunks, embeds, hidden)
    return [hidden[0, end - 1] for end in accumulate(sizes)]


def follow_chunks(talker: Talker, chunks: Sequence[Chunk], embeds: Tensor, hidden: Tensor) -> None:
    """One pass of the Talker over the chunks that are spoken of, and the speaker's rows behind them; embeds, hidden
    (1, T, D): what the Thinker read and found."""
    filled = torch.cat([chunk.context.tokens.filled()[chunk.start : chunk.stop] for chunk in chunks])
    parts = torch.split(prompt_rows(embeds, hidden, filled.to(talker.device)), [len(chunk) for chunk in chunks], 1)
    tables, counts = list[PageTable](), list[int]()
    rows, positions = list[Tensor](), list[Tensor]()
    for chunk, part in zip(chunks, parts, strict=True):
        if (table := chunk.context.talker_kv) is None:
            continue
        tokens = chunk.context.tokens
        rows.append(part)
        positions.append(tokens.positions[:, chunk.start : chunk.stop])
        if chunk.speaker is not None:
            rows.append(chunk.speaker[None, None])
            positions.append(torch.full((3, 1), tokens.next_position))
        tables.append(table)
        counts.append(len(chunk) + (chunk.speaker is not None))
    if tables:
        at = torch.cat(positions, dim=1)[:, None].to(talker.device)
        talker.decoder(talker.proj(torch.cat(rows, dim=1)), at, PackedBatch(tables, counts))


def read_replies(talker: Talker, contexts: Sequence[Context], counts: Sequence[int]) -> list[int]:
    """Have the Talker read what only the Thinker has read, ``counts`` states of a reply each; returns ``counts``."""
    tables = [table for context in contexts if (table := context.talker_kv) is not None]
    states = [state for context, count in zip(contexts, counts, strict=True) for state in context.reply_states[:count]]
    spread = [
        context.tokens.positions[:, table.length : table.length + count]
        for context, table, count in zip(contexts, tables, counts, strict=True)
    ]
    positions = torch.cat(spread, dim=1)[:, None].to(talker.device)
    talker.decoder(talker.proj(torch.stack(states)[None]), positions, PackedBatch(tables, counts))
    return list(counts)
