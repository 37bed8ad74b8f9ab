"""The Talker: it reads the Thinker's rows and writes codes of speech, one per step.

Rows (width E = the Thinker's hidden size; h = Thinker output after its final norm, e = what the Thinker read):

    prompt     h + e, with e = 0 at placeholders of media            P rows
    speaker    embedding of the voice's token + code embedding[pad]   1 row
    first      (h + e) of the first reply token + code embedding[start]   1 row; its logits draw the first code
    step k     stream[k] + code embedding[code k - 1]                 stream: (h + e) of reply tokens 2.., text end,
                                                                      then text pad for as long as the voice speaks
One text row is eaten per code; there is no alignment. While the Thinker is still writing, the Talker must wait for the
next row: feeding the pad early would change what is said.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from descant.config import TalkerConfig
from descant.model.decoder import Decoder
from descant.model.thinker import Thinker
from descant.nn.cache import Cache
from descant.nn.linear import Linear


class Talker(nn.Module):
    """A projection from the Thinker's width, a decoder and a head over codes."""

    def __init__(self, cfg: TalkerConfig):
        super().__init__()
        self.cfg = cfg
        self.proj = Linear(cfg.decoder.embedding_size, cfg.decoder.hidden_size)
        self.decoder = Decoder(cfg.decoder)
        self.codec_head = Linear(cfg.decoder.hidden_size, cfg.decoder.vocab_size, bias=False)

    @property
    def device(self) -> torch.device:
        """Where the weights are, and where inputs must be."""
        return self.decoder.embed_tokens.weight.device

    def codec_embed(self, ids: Tensor) -> Tensor:
        """Codes or their specials, ids (...) -> (..., E)."""
        rows: Tensor = self.decoder.embed_tokens(ids)
        return rows

    def special(self, code: int) -> Tensor:
        """The embedding of one special code, (E,)."""
        return self.decoder.embed_tokens.weight[code]

    def forward(
        self, rows: Tensor, positions: Tensor, cache: Cache | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """rows (B, T, E), TMRoPE ids positions (3, B, T) -> logits (B, T, C) float32; see Decoder."""
        logits: Tensor = self.codec_head(self.decoder(self.proj(rows), positions, cache, mask))
        return logits.float()


def prompt_rows(embeds: Tensor, hidden: Tensor, media_mask: Tensor) -> Tensor:
    """h + e of the prompt, (..., P, E), with e = 0 where media_mask (..., P) marks a placeholder."""
    return hidden + embeds.masked_fill(media_mask.unsqueeze(-1), 0.0)


def reply_rows(embeds: Tensor, hidden: Tensor) -> Tensor:
    """h + e of reply tokens, (..., G, E)."""
    return hidden + embeds


def speaker_row(talker: Talker, bos_embed: Tensor) -> Tensor:
    """The row after the prompt: bos_embed (..., E) = Thinker embedding of Voice.bos_token, + code embedding[pad]."""
    return bos_embed + talker.special(talker.cfg.codec_pad_id)


def first_row(talker: Talker, reply_row: Tensor) -> Tensor:
    """The row after the speaker's: h + e of the first reply token (..., E), + code embedding[start]."""
    return reply_row + talker.special(talker.cfg.codec_start_id)


def step_row(talker: Talker, codes: Tensor, text_rows: Tensor) -> Tensor:
    """The row of a later step: the code just drawn, codes (...), + the head of the text stream (..., E)."""
    return talker.codec_embed(codes) + text_rows


def tail_rows(thinker: Thinker, cfg: TalkerConfig) -> Tensor:
    """The rows after the reply in the text stream, (2, E): text end (once), text pad (for ever)."""
    return thinker.embed_tokens(torch.tensor([cfg.text_end_id, cfg.text_pad_id], device=thinker.device))
