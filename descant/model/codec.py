"""Codes -> sound, while the codes are still coming: windows of the DiT, then a stream through the vocoder.

Windows are cut at absolute frames and noise belongs to (seed, block), so the samples do not depend on how the codes
arrive. They do differ a little from a whole-utterance solve: every evaluation of the DiT looks one block further ahead.
Streams are fed, and share each ``step``.

Axes: C codes, T mel frames, M mel bins, D width, W samples; G is 2 with guidance (condition, null), else 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from descant.config import BigVGANConfig, Token2WavConfig
from descant.errors import ConfigError, OptionError, SessionError
from descant.model.dit import Condition, DiT
from descant.model.vocoder import BigVGAN
from descant.model.vocoding import VocoderState, vocode, vocoder_input
from descant.model.vocos import Vocos
from descant.model.windows import SolverWindow, solve_windows
from descant.nn.regions import EAGER, Company, Regions
from descant.nn.seeds import mix64
from descant.types import Decoding, Latency, Voice

MEL_FRAME_S = 0.01  # 240 samples at 24 kHz
NO_GUIDANCE = 1e-5  # below it the null branch is not computed (the reference's threshold)


def decoding_for(latency: Latency, base: Decoding | None = None) -> Decoding:
    """The preset behind the dial. ``base`` gives what belongs to a model (guidance, sway, noise scale), not to speed.

    Codes needed before the first sound, in blocks of 240 ms: low 1; balanced 1 + 1; quality 2 + 2. Low opens without a
    look-ahead, which costs its first block what Euler costs all of them, and leaves a gap after it where the Talker is
    not three times as fast as the sound. Quality alone holds back the vocoder's right context (23 frames = 230 ms for
    the embedded model's Vocos, 34 for the official BigVGAN); the others read the look-ahead mel in its place, and fade
    over where the final mel says otherwise. Quality alone keeps the products of a GPU in float32. The figures behind
    it: benchmarks/README.md.
    """
    base = base or Decoding()
    if latency == "low":  # 4 evaluations
        base = replace(base, first=1, first_ahead=0, now=2, ahead=1, early=True)
        return replace(base, solver="euler", points=5, precision="tf32")
    if latency == "balanced":  # 6 evaluations, 3 with guidance; the authors' low-memory decoder makes 9 of Euler's
        base = replace(base, first=1, first_ahead=1, now=4, ahead=1, early=True)
        return replace(base, solver="midpoint", points=4, precision="tf32")
    if latency == "quality":  # 36 evaluations: the official solve
        return replace(base, first=2, first_ahead=2, now=4, ahead=2, solver="rk4", points=10, early=False)
    raise OptionError(f"latency {latency!r} is unknown; choose low, balanced or quality")


@dataclass(frozen=True)
class PreparedVoice:
    """A voice as this codec uses it. rows (2, D): its share of the condition, and that of the null branch."""

    name: str
    bos_token: int
    rows: Tensor

    def for_decoding(self, decoding: Decoding) -> Tensor:
        """(G, D): without guidance the null branch is not computed."""
        return self.rows if decoding.guidance >= NO_GUIDANCE else self.rows[:1]


@dataclass(frozen=True)
class CodecState:
    """Everything one stream remembers; a new one is returned by every call, the old one stays good.

    voice (G, D): the voice's share of the condition. blocks: blocks whose mel is final. codes (C,) int64 on the CPU:
    those after them. past: what the DiT's next window reads of the last final block (``windows.Solved``), None before
    the first. finished: no more codes will come.
    """

    voice: Tensor
    seed: int
    decoding: Decoding
    vocoder: VocoderState
    codes: Tensor
    past: tuple[Tensor, ...] | None = None
    blocks: int = 0
    finished: bool = False


@dataclass(frozen=True)
class WindowPlan:
    """The next window of a stream: blocks to make final (the last may be partial), blocks to look ahead."""

    count: int
    ahead: int
    last: bool = False

    @property
    def company(self) -> Company:
        """The company in which such a window is met: see ``nn.regions``."""
        return "alone" if self.last else "any"


class Token2Wav(nn.Module):
    """The DiT and a vocoder. float32 only, as the official model."""

    def __init__(self, cfg: Token2WavConfig):
        super().__init__()
        if cfg.dit.block_size % cfg.dit.repeats:
            raise ConfigError(f"block_size {cfg.dit.block_size} is not a multiple of repeats {cfg.dit.repeats}")
        self.cfg = cfg
        self.dit = DiT(cfg.dit)
        self.vocoder: BigVGAN | Vocos
        self.vocoder = BigVGAN(cfg.vocoder) if isinstance(cfg.vocoder, BigVGANConfig) else Vocos(cfg.vocoder)

    @property
    def codes_per_block(self) -> int:
        return self.cfg.dit.block_size // self.cfg.dit.repeats

    @property
    def code_s(self) -> float:
        """Seconds of sound of one code."""
        return self.cfg.dit.repeats * MEL_FRAME_S

    # ------------------------------------------------------------ the stream

    @torch.no_grad()
    def start(self, voice: PreparedVoice, seed: int, decoding: Decoding) -> CodecState:
        """A fresh stream. ``seed`` alone decides the noise."""
        mel = torch.zeros(self.cfg.dit.mel_dim, 0, device=self.device)
        codes = torch.zeros(0, dtype=torch.int64)
        return CodecState(voice.for_decoding(decoding), seed, decoding, VocoderState(mel), codes)

    # ------------------------------------------------------------ feed, close, and step while any stream is due

    def feed(self, state: CodecState, codes: Tensor | Sequence[int]) -> CodecState:
        """Take codes (C,), C >= 0; nothing is computed yet. A SessionError after ``close``.

        An id past the code table (the Talker's vocabulary is larger) is read as code 0.
        """
        if state.finished:
            raise SessionError("codes were pushed to a finished stream; start a new one")
        new = torch.as_tensor(codes, dtype=torch.int64, device="cpu")
        new = new.masked_fill((new < 0) | (new > self.cfg.dit.num_embeds), 0)
        return replace(state, codes=torch.cat([state.codes, new]))

    def close(self, state: CodecState) -> CodecState:
        """No more codes will come: what is left becomes due. A SessionError the second time."""
        if state.finished:
            raise SessionError("the stream is finished already")
        return replace(state, finished=True)

    def due(self, state: CodecState) -> bool:
        """True if ``step`` would move this stream on."""
        return self.next_window(state) is not None

    @torch.no_grad()
    def step(self, states: Sequence[CodecState], regions: Regions = EAGER) -> list[tuple[Tensor, CodecState]]:
        """One window of every stream that has one due: the samples (W,) it frees and the new state, in order.

        Windows of one geometry are solved in one batch, and mels of one length vocoded in one. A stream with nothing
        due comes back as it was, with W = 0. Nothing is changed in place: after an error each state can be tried alone.
        """
        plans = [self.next_window(state) for state in states]
        moved = iter(self.step_windows([(s, plan) for s, plan in zip(states, plans, strict=True) if plan], regions))
        none = torch.zeros(0, device=self.device)
        return [next(moved) if plan else (none, s) for s, plan in zip(states, plans, strict=True)]

    def step_windows(
        self, due: Sequence[tuple[CodecState, WindowPlan]], regions: Regions = EAGER
    ) -> list[tuple[Tensor, CodecState]]:
        """``step`` for streams that all have a window due."""
        frames, solved = self.cfg.dit.block_size, self.mel_windows(due, regions)
        inputs = [
            replace(
                vocoder_input(
                    self.vocoder,
                    state.vocoder,
                    mel[:, : plan.count * frames],
                    mel[:, plan.count * frames :],
                    early=state.decoding.early,
                    last=plan.last,
                ),
                precision=state.decoding.precision,
                company=plan.company if mel.shape[1] % frames == 0 else "none",
            )
            for (state, plan), (mel, _) in zip(due, solved, strict=True)
        ]
        return [
            (wave, replace(moved, vocoder=vocoder))
            for (_, moved), (wave, vocoder) in zip(solved, vocode(self.vocoder, inputs, regions), strict=True)
        ]

    def blocks_left(self, state: CodecState) -> int:
        """Blocks that have codes but no final mel, a partial one included."""
        return -(-len(state.codes) // self.codes_per_block)

    def upcoming_window(self, state: CodecState) -> WindowPlan:
        """The next window, if codes go on coming."""
        d = state.decoding
        return WindowPlan(min(d.now, state.blocks), d.ahead) if state.blocks else WindowPlan(d.first, d.first_ahead)

    def missing_codes(self, state: CodecState) -> int:
        """Codes that ``upcoming_window`` still lacks; 0 or less: none."""
        plan = self.upcoming_window(state)
        return (plan.count + plan.ahead) * self.codes_per_block - len(state.codes)

    def next_window(self, state: CodecState) -> WindowPlan | None:
        """The window that is due, if any; the last one may have no block, only sound that waited for its context."""
        if self.missing_codes(state) <= 0:
            return self.upcoming_window(state)
        left = self.blocks_left(state)
        if state.finished and (left or state.vocoder.emitted < state.vocoder.end):
            return WindowPlan(left, 0, last=True)
        return None

    def mel_windows(
        self, due: Sequence[tuple[CodecState, WindowPlan]], regions: Regions = EAGER
    ) -> list[tuple[Tensor, CodecState]]:
        """Of each stream the mel (M, T) of its window, the unfinished mel of the blocks ahead included, and the stream
        with the others final."""
        none = torch.zeros(self.cfg.dit.mel_dim, 0, device=self.device)
        windows = [self.solver_window(state, plan) for state, plan in due if plan.count]
        solved = iter(solve_windows(self.dit, windows, regions))
        moved = []
        for state, plan in due:
            if not plan.count:
                moved.append((none, state))
                continue
            got = next(solved)
            codes = state.codes[plan.count * self.codes_per_block :]
            moved.append((got.mel, replace(state, codes=codes, past=got.past, blocks=state.blocks + plan.count)))
        return moved

    def solver_window(self, state: CodecState, plan: WindowPlan) -> SolverWindow:
        """The DiT's input: the blocks now and ahead, from the noise of those very blocks. The last one of an utterance
        is filled up with code 0, which nothing real reads."""
        cfg = self.cfg.dit
        most = (plan.count + plan.ahead) * self.codes_per_block
        codes = state.codes[:most]
        frames = None if len(codes) == most else len(codes) * cfg.repeats
        codes = F.pad(codes, (0, most - len(codes)))
        x0 = block_noise(state.seed, state.blocks, most * cfg.repeats, cfg.block_size, cfg.mel_dim)
        keep, company = plan.count - 1, plan.company
        return SolverWindow(codes, state.voice, x0, state.decoding, state.past, keep, frames, company)

    # ------------------------------------------------------------ the solve

    @torch.no_grad()
    def mel_whole(self, codes: Tensor, voice: PreparedVoice, x0: Tensor, decoding: Decoding) -> Tensor:
        """One solve over the whole utterance: codes (C,) int64, noise x0 (T, M) -> mel (M, T), T = C * repeats."""
        limit = self.cfg.dit.max_position_embeddings
        if len(x0) > limit:
            raise OptionError(f"{len(x0)} mel frames in one solve; at most {limit}. Decode as a stream instead")
        window = SolverWindow(codes.cpu(), voice.for_decoding(decoding), x0.cpu(), decoding)
        return solve_windows(self.dit, [window])[0].mel

    @torch.no_grad()
    def prepare_voice(self, voice: Voice) -> PreparedVoice:
        """Compute what a voice brings to the condition, once.

        The null branch is whole, its code 0 included: a zero speaker and a zero reference of the same length, still
        read by ECAPA. OptionError when the reference is too short for it.
        """
        needed = self.dit.input_embed.spk_encoder.min_frames
        if len(voice.ref_mel) < needed:
            raise OptionError(
                f"voice {voice.name!r}: ref_mel has {len(voice.ref_mel)} frames; at least {needed} needed"
            )
        speaker, ref_mel = voice.vector[None].to(self.device), voice.ref_mel[None].to(self.device)
        null = Condition(torch.zeros(1, 1, dtype=torch.int64, device=self.device), speaker, ref_mel).null()
        rows = torch.cat([self.dit.voice(speaker, ref_mel), self.dit.condition(null)[:, 0]])
        return PreparedVoice(voice.name, voice.bos_token, rows)

    @property
    def device(self) -> torch.device:
        return self.dit.text_embed.codec_embed.weight.device


def block_noise(seed: int, first_block: int, frames: int, block_size: int, bins: int) -> Tensor:
    """Standard normal (T, M) float32 on the CPU, for ``frames`` frames from the start of ``first_block``.

    Each block has a generator of its own, seeded from (seed, block): a frame's noise is the same in every window.
    """
    count = -(-frames // block_size)
    blocks = []
    for block in range(first_block, first_block + count):
        generator = torch.Generator().manual_seed(mix64(seed, block) >> 1)
        blocks.append(torch.randn(block_size, bins, generator=generator))
    return torch.cat(blocks)[:frames] if blocks else torch.zeros(0, bins)
