"""The causal decoder that is the body of both the Thinker and the Talker (Qwen2 shape, with TMRoPE)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from descant.config import DecoderConfig
from descant.nn.attention import causal_mask, grouped_attention
from descant.nn.cache import Cache, keys_values
from descant.nn.fusion import Fusable, SwiGLU
from descant.nn.linear import Linear, adds_in_place
from descant.nn.norm import RMSNorm
from descant.nn.pages import PageStore, PageTable
from descant.nn.rope import mrope, turn, turn_heads


@dataclass(frozen=True)
class Step:
    """Shared by all layers of one forward: rotary tables (B, T, 1, D), and the cache or, without one, the mask."""

    cos: Tensor
    sin: Tensor
    mask: Tensor | None  # None without a cache: the plain causal pass over a whole sequence
    cache: Cache | None


class Attention(Fusable):
    """Grouped-query causal attention. q, k, v have biases, o has none."""

    def __init__(self, cfg: DecoderConfig):
        super().__init__()
        self.head_dim = cfg.head_dim
        query, keys = cfg.num_attention_heads * cfg.head_dim, cfg.num_key_value_heads * cfg.head_dim
        self.q_proj = Linear(cfg.hidden_size, query, bias=True)
        self.k_proj = Linear(cfg.hidden_size, keys, bias=True)
        self.v_proj = Linear(cfg.hidden_size, keys, bias=True)
        self.o_proj = Linear(query, cfg.hidden_size, bias=False)

    def fused_layers(self) -> Sequence[nn.Linear]:
        return self.q_proj, self.k_proj, self.v_proj

    def forward(self, x: Tensor, step: Step, layer: int, residual: Tensor) -> Tensor:
        """residual + attention of x, both (B, T, D); see ``Linear.added_to``."""
        q, new = self.projected(x, step)
        if step.cache is None:
            causal = step.mask is None and x.shape[1] > 1
            seen = grouped_attention(q.transpose(1, 2), *keys_values(new), step.mask, causal=causal)
        else:
            seen = step.cache.attend(layer, q, new)
        return self.o_proj.added_to(residual, seen)

    def projected(self, x: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """Queries (B, T, Hq, D), keys and values (B, T, 2, Hk, D); queries and keys turned to their positions."""
        batch, new, _ = x.shape
        if self.fused is None:
            q, k, v = (layer(x).view(batch, new, -1, self.head_dim) for layer in self.fused_layers())
            return turn(q, step.cos, step.sin), torch.stack((turn(k, step.cos, step.sin), v), dim=2)
        query, keys, _ = (size // self.head_dim for size in self.fused.sizes)
        heads = self.fused(x).view(batch, new, -1, self.head_dim)
        turn_heads(heads.narrow(2, 0, query + keys), step.cos, step.sin)
        # in place: so keys and values lie side by side, as in the cache
        return heads.narrow(2, 0, query), heads.narrow(2, query, 2 * keys).view(batch, new, 2, keys, self.head_dim)


class Layer(nn.Module):
    """Pre-norm attention and SwiGLU, each with a residual."""

    def __init__(self, cfg: DecoderConfig):
        super().__init__()
        self.self_attn = Attention(cfg)
        self.mlp = SwiGLU(cfg.hidden_size, cfg.intermediate_size, bias=False)
        self.input_layernorm = RMSNorm(cfg.hidden_size, cfg.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(cfg.hidden_size, cfg.rms_norm_eps)

    def forward(self, x: Tensor, step: Step, layer: int) -> Tensor:
        x = self.self_attn(self.input_layernorm(x), step, layer, x)
        return self.mlp.down_proj.added_to(x, self.mlp.inner(self.post_attention_layernorm(x)))


def new_table(cfg: DecoderConfig, tokens: int, *, like: Tensor, page: int = 16) -> PageTable:
    """A page table over a store of its own with room for ``tokens``: for one sequence that shares nothing."""
    size = cfg.num_hidden_layers, cfg.num_key_value_heads, cfg.head_dim
    return PageTable(PageStore(*size, size=page, limit=-(-tokens // page), like=like))


class Decoder(nn.Module):
    """Embedding table, layers and the final norm. The table's width may differ from the hidden size (Talker)."""

    def __init__(self, cfg: DecoderConfig):
        super().__init__()
        self.cfg = cfg
        self.embed_tokens = nn.Embedding(cfg.vocab_size, cfg.embedding_size)
        self.layers = nn.ModuleList([Layer(cfg) for _ in range(cfg.num_hidden_layers)])
        self.norm = RMSNorm(cfg.hidden_size, cfg.rms_norm_eps)

    def forward(self, x: Tensor, positions: Tensor, cache: Cache | None = None, mask: Tensor | None = None) -> Tensor:
        """x (B, T, D) with TMRoPE ids positions (3, B, T) -> hidden (B, T, D) after the final norm.

        cache: what was seen before; these T tokens are written into it, and it knows what each of them sees.
        mask (B, T) bool, without a cache alone: True for real tokens. Only padding on the left needs it: a real token
        never sees padding on its right.
        """
        assert cache is None or mask is None, "a cache knows what its tokens see; give a mask only without one"
        cos, sin = mrope(positions, self.cfg.head_dim, self.cfg.rope_theta, self.cfg.mrope_section)
        seen = None if cache is not None else causal_mask(x.shape[1], 0, mask, x.device)
        step = Step(cos.unsqueeze(2), sin.unsqueeze(2), seen, cache)
        x = x.clone(memory_format=torch.contiguous_format) if adds_in_place(x) else x  # what came is the caller's
        for index, layer in enumerate(self.layers):
            x = layer(x, step, index)
        out: Tensor = self.norm(x)
        return out
