"""The plan of a device's memory: the weights that lie there, the sessions that fit beside them, and what gives way.

Weights, keys and values, codec states and the peak of each pass follow from the config: the passes are made on the meta
device, and what is alive in them is counted. What a driver and its libraries hold is estimated, and said to be.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from descant.config import DecoderConfig, OmniConfig
from descant.engine.limits import Limits
from descant.engine.scheduler import SchedulerConfig
from descant.errors import OptionError
from descant.model.codec import decoding_for
from descant.model.ode import evaluations
from descant.types import Decoding
from descant.weights.parts import Parts, build_on_meta

log = logging.getLogger(__name__)

GIB_BYTES = 1 << 30
USABLE_SHARE = 0.97  # of a card: the driver keeps the rest (an H100 of 80 GB gives about 78)
CONTEXT_BYTES = GIB_BYTES // 2  # estimate: CUDA's context, the workspaces of its libraries
GRAPH_BYTES = GIB_BYTES  # estimate: captured decode steps and windows (``REGION_BYTES``), which share one pool
SESSION_TOKENS = 4096  # of each decoder: what a talk with pictures comes to hold
MOST_SESSIONS = 64  # that one engine serves at once by its plan
FEW_SESSIONS = 4  # fewer are worth the wait for encoders that are fetched
CACHE_TOKENS = 16384  # of each session at most: memory beyond that is left to others
PICTURE_SIDE = 1344  # pixels; a picture of 2,304 tokens, the largest that a plan is made for
WINDOW_FRAMES = 72  # mel frames of the longest window that is vocoded at once
SCALE_BITS = 0.5  # of each quantised weight: its share of a scale for 32
ENCODERS = ("thinker.audio", "thinker.vision")
# Of a data-centre GPU; a run of 8 codes holds whoever comes up by about 10 ms
PACE = SchedulerConfig(prefill_tokens=2048, prefill_tokens_speaking=512, decode_batch=16, code_run=8)


@dataclass(frozen=True)
class Plan:
    """Where the memory of a device goes, in bytes.

    weights: of each part that stays there. idle: of parts that wait in the host's memory and come when they work.
    pass_bytes: of the largest pass. token_bytes: keys and values of one token of both decoders. codec_bytes: of one
    voice that speaks. sessions: answers at once (0: it does not fit). tokens: of each decoder's cache.
    """

    memory: int
    weights: Mapping[str, int]
    idle: Mapping[str, int]
    pass_bytes: int
    token_bytes: int
    codec_bytes: int
    sessions: int
    tokens: int

    @property
    def fits(self) -> bool:
        return self.sessions > 0

    @property
    def resident(self) -> int:
        """Bytes of the weights that are on the device at once: with those that wait, the largest of these."""
        return sum(self.weights.values()) + max(self.idle.values(), default=0)

    @property
    def missing(self) -> int:
        """Bytes that one session lacks; 0 where it fits."""
        return max(0, -self.room + SESSION_TOKENS * self.token_bytes + self.codec_bytes)

    @property
    def room(self) -> int:
        """Bytes that are left for sessions."""
        reserved = CONTEXT_BYTES + GRAPH_BYTES + self.pass_bytes
        return int(self.memory * USABLE_SHARE) - self.resident - reserved

    @property
    def limits(self) -> Limits:
        """The limits of an engine on that device."""
        return Limits(self.tokens, self.tokens, sessions=self.sessions, scheduler=PACE)


def make_plan(config: OmniConfig, weights: Mapping[str, int], memory: int, decoding: Decoding | None = None) -> Plan:
    """The plan for ``memory`` bytes. weights: bytes of each part, by the first two words of its tensors' names.

    All weights on the device; if few sessions fit so, the encoders wait in the host's memory. Quantised weights cannot
    be loaded, so they are not planned with.
    """
    whole = Plan(memory, weights, {}, pass_bytes(config), token_bytes(config), codec_bytes(config, decoding), 0, 0)
    plans = [shared_out(whole, idle) for idle in ((), ENCODERS)]
    return plans[0] if plans[0].sessions >= FEW_SESSIONS else max(plans, key=lambda plan: (plan.sessions, plan.room))


def shared_out(whole: Plan, idle: Collection[str]) -> Plan:
    """The plan with these parts on the host, and the sessions that it has room for."""
    split = replace(
        whole,
        weights={name: size for name, size in whole.weights.items() if name not in idle},
        idle={name: size for name, size in whole.weights.items() if name in idle},
    )
    session = SESSION_TOKENS * split.token_bytes + split.codec_bytes
    sessions = max(0, min(MOST_SESSIONS, split.room // session))
    tokens = (split.room - sessions * split.codec_bytes) // split.token_bytes
    return replace(split, sessions=sessions, tokens=max(0, min(tokens, sessions * CACHE_TOKENS)))


def token_bytes(config: OmniConfig) -> int:
    """Keys and values of one token in the caches of both decoders, in half precision."""
    decoders = [config.thinker.text] + ([] if config.talker is None else [config.talker.decoder])
    return sum(_token_bytes(decoder) for decoder in decoders)


def _token_bytes(cfg: DecoderConfig) -> int:
    return 2 * cfg.num_hidden_layers * cfg.num_key_value_heads * cfg.head_dim * torch.bfloat16.itemsize


def codec_bytes(config: OmniConfig, decoding: Decoding | None = None) -> int:
    """Bytes that the codec decoder keeps of one voice: at each evaluation of the solver, keys and values of a
    block in the layers that look back, in both branches of guidance; see ``SolvedWindow``."""
    if config.token2wav is None:
        return 0
    dit = config.token2wav.dit
    made = decoding or decoding_for("balanced")
    block = 2 * dit.block_size * dit.num_attention_heads * dit.head_dim * torch.float32.itemsize
    return evaluations(made.points, made.solver) * len(dit.look_backward_layers) * 2 * block


def pass_bytes(config: OmniConfig) -> int:
    """The most that one pass holds at once: a chunk of a prompt, a picture, or a window of each of many voices."""
    parts = build_on_meta(config)
    thinker = parts.thinker.to(torch.bfloat16)
    vision = config.thinker.vision
    side = PICTURE_SIDE // vision.patch_size // vision.spatial_merge_size * vision.spatial_merge_size
    width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    chunk = PACE.prefill_tokens

    def read() -> object:
        rows = torch.empty(1, chunk, config.thinker.text.hidden_size, dtype=torch.bfloat16, device="meta")
        return thinker(rows, torch.empty(3, 1, chunk, dtype=torch.long, device="meta"))

    def see() -> object:
        patches = torch.empty(side * side, width, dtype=torch.bfloat16, device="meta")
        return thinker.vision(patches, [(1, side, side)])

    passes: list[Callable[[], object]] = [read, see, *_sounding(parts)]
    return max(peak_bytes(one) for one in passes)


def _sounding(parts: Parts) -> list[Callable[[], object]]:
    if parts.token2wav is None:
        return []
    vocoder, bins = parts.token2wav.vocoder, parts.token2wav.cfg.dit.mel_dim
    return [lambda: vocoder(torch.empty(PACE.decode_batch, bins, WINDOW_FRAMES, device="meta"))]


def peak_bytes(run: Callable[[], object]) -> int:
    """The most bytes of new tensors that ``run`` has alive at once; on the meta device it takes a second."""
    alive = _Alive()
    with torch.inference_mode(), _FusedAttention(), alive:
        run()
    return alive.most


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages that operations make, until they are freed; a view of what was there before is none."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self.sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self, operation: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        made = operation(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, list | tuple) else (made,):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in given:
                self.meet(tensor.untyped_storage())
        return made

    def meet(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.sizes:
            self.sizes[key] = storage.nbytes()
            self.now += self.sizes[key]
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self.lose, key)

    def lose(self, key: int) -> None:
        self.now -= self.sizes.pop(key)


class _FusedAttention(TorchFunctionMode):
    """Attention as a fused kernel computes it: its scores are never in memory."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if function is F.scaled_dot_product_attention:
            return torch.empty_like(args[0])
        return function(*args, **(kwargs or {}))


@dataclass
class DevicePlanner:
    """Plans a model for what is free on a GPU, when its checkpoint is about to be loaded: a ``Placement``.

    limited: the user has set limits, so that what does not fit by the plan is tried all the same.
    """

    name: str
    device: str
    decoding: Decoding | None
    limited: bool
    plan: Plan | None = None

    def __call__(self, config: OmniConfig, weights: Mapping[str, int]) -> Collection[str]:
        """The parts that are to stay in the host's memory. OptionError: the model does not fit."""
        free, _ = torch.cuda.mem_get_info(self.device)
        self.plan = plan = make_plan(config, weights, free, self.decoding)
        if not plan.fits and not self.limited:
            raise OptionError(
                f"{self.name} does not fit on {self.device}, {gib(free)} free: {verdict(plan)} "
                f"(descant inspect {self.name} --plan)"
            )
        log.info("%s on %s: %s; %s", self.name, self.device, verdict(plan), plan.limits)
        return tuple(plan.idle)


# ---------------------------------------------------------------- for people


def plan_table(plans: Mapping[str, Plan]) -> str:
    """Plans for people: a row for each device, by its name."""
    rows = [f"{'device':>8}{'weights':>10}{'on host':>10}{'a pass':>9}{'cache tokens':>14}{'sessions':>10}  verdict"]
    for name, plan in plans.items():
        on_host = gib(sum(plan.idle.values())) if plan.idle and plan.fits else "-"
        rows.append(
            f"{name:>8}{gib(plan.resident):>10}{on_host:>10}{gib(plan.pass_bytes):>9}"
            f"{plan.tokens:>14,}{plan.sessions:>10}  {verdict(plan)}"
        )
    return "\n".join(rows)


def verdict(plan: Plan) -> str:
    """One plan in words: what fits, and what to do where it does not."""
    if plan.fits and not plan.idle:
        return "everything on the device"
    if plan.fits:
        return f"the encoders ({gib(sum(plan.idle.values()))}) wait on the host while nothing is shown"
    short = f"{gib(plan.missing)} short"
    silent = sum(size for name, size in plan.weights.items() if not name.startswith("thinker."))
    if plan.missing <= silent:
        return f"{short}: fits without its voice (enable_audio_output: false in config.json)"
    for bits in (8, 4):
        if plan.missing <= plan.weights["thinker.decoder"] * (1 - (bits + SCALE_BITS) / 16):
            return f"{short}: would fit with the Thinker's layers in {bits} bits, which descant cannot load yet"
    return f"{short}: take a smaller model or a larger device"


def gib(size: int) -> str:
    """Bytes as GiB."""
    return f"{size / GIB_BYTES:.1f} GiB"


def plan_json(plan: Plan) -> dict[str, object]:
    """The plan for programs; all sizes in bytes."""
    return {
        "memory": plan.memory,
        "fits": plan.fits,
        "weights": dict(plan.weights),
        "weights_on_host": dict(plan.idle),
        "pass": plan.pass_bytes,
        "reserved": CONTEXT_BYTES + GRAPH_BYTES,
        "token": plan.token_bytes,
        "codec_state": plan.codec_bytes,
        "sessions": plan.sessions,
        "tokens": plan.tokens,
        "verdict": verdict(plan),
    }
