"""The material of an engine: the weights that all sessions share, and the stores of their key/value caches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from descant.inputs.tokenizer import Tokenizer
from descant.model.codec import PreparedVoice, Token2Wav
from descant.model.decoder import Decoder
from descant.model.talker import Talker
from descant.model.thinker import Thinker
from descant.nn.offload import OffloadedModule
from descant.nn.pages import PageStore
from descant.tokens import MediaType

PAGE_TOKENS = 16
SINGLE_THREAD_BELOW = 2**25  # parameters; nano has 6 million and takes half as long again with two threads (LOG.md)


@dataclass(frozen=True)
class Models:
    """The weights, the voices and the tokenizer: read-only, shared by every session. offloaded: the encoders whose
    weights are in the host's memory until they work, by the kind of what they read."""

    thinker: Thinker
    talker: Talker | None
    token2wav: Token2Wav | None
    tokenizer: Tokenizer
    stop_ids: frozenset[int]  # text ids that end an answer
    stop_codes: frozenset[int] = frozenset()
    banned_codes: frozenset[int] = frozenset()  # never drawn
    voices: Mapping[str, PreparedVoice] = field(default_factory=dict)
    offloaded: Mapping[MediaType, OffloadedModule] = field(default_factory=dict)


@dataclass(frozen=True)
class Stores:
    """Where the sessions of one engine keep their keys and values. talker None: a model without a voice."""

    thinker: PageStore
    talker: PageStore | None


def new_stores(
    models: Models, tokens: int, talker_tokens: int, page: int = PAGE_TOKENS, *, whole: bool | None = None
) -> Stores:
    """Empty stores with room for so many tokens of the Thinker and of the Talker; they grow as they are used, or have
    their whole size at once (None: on a GPU)."""

    def store(decoder: Decoder, room: int) -> PageStore:
        cfg = decoder.cfg
        like = decoder.embed_tokens.weight
        size = cfg.num_hidden_layers, cfg.num_key_value_heads, cfg.head_dim
        return PageStore(*size, size=page, limit=-(-room // page), like=like, whole=whole)

    talker = None if models.talker is None else store(models.talker.decoder, talker_tokens)
    return Stores(store(models.thinker.decoder, tokens), talker)


def offloaded_encoders(thinker: Thinker) -> dict[MediaType, OffloadedModule]:
    """The encoders whose weights are not where the Thinker's are, by what they read."""
    away: dict[nn.Module, OffloadedModule] = {
        encoder: OffloadedModule(encoder, thinker.device)
        for encoder in (thinker.audio, thinker.vision)
        if next(encoder.parameters()).device != thinker.device
    }
    encoders: tuple[tuple[MediaType, nn.Module], ...] = (
        ("audio", thinker.audio),
        ("image", thinker.vision),
        ("video", thinker.vision),
    )
    return {kind: away[encoder] for kind, encoder in encoders if encoder in away}


def codes_beyond_table(talker: Talker, token2wav: Token2Wav, stops: frozenset[int]) -> frozenset[int]:
    """Ids that the Talker could draw but the DiT has no row for, and that stop nothing (the reference would crash)."""
    return frozenset(range(token2wav.cfg.dit.num_embeds + 1, talker.cfg.decoder.vocab_size)) - stops


def prefers_one_thread(models: Models) -> bool:
    """True for a model so small that a second thread slows its matrix products down (LOG.md, Many answers)."""
    return sum(weight.numel() for weight in models.thinker.parameters()) < SINGLE_THREAD_BELOW
