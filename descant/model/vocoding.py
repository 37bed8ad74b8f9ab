"""Mel -> samples, as a stream: a vocoder with a finite reach, joined without a seam.

Axes: T mel frames, M mel bins, W samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from descant.model.vocoder import BigVGAN
from descant.model.vocos import Vocos
from descant.model.windows import in_groups, precision
from descant.nn.regions import EAGER, Company, Regions, runner
from descant.types import Precision

STAND_IN_FRAMES = 8  # most of what a vocoder hears of the frames after one, whatever its reach

Vocoder = BigVGAN | Vocos


@dataclass(frozen=True)
class VocoderState:
    """mel (M, T): final frames that later samples still need, the first at absolute frame ``start``.
    emitted: frames whose samples are out. fade (W,): one frame of sound past them, made from the unfinished mel."""

    mel: Tensor
    start: int = 0
    emitted: int = 0
    fade: Tensor | None = None

    @property
    def end(self) -> int:
        """The frame after the last final one."""
        return self.start + self.mel.shape[1]


@dataclass(frozen=True)
class VocoderInput:
    """One stream's next mel, on its way through the vocoder.

    mel (M, T): final, from ``state.start`` on; mel_in_context (M, T'): the same with its right context. until: the
    frame up to which samples can go out. company: see ``nn.regions``.
    """

    state: VocoderState
    mel: Tensor
    mel_in_context: Tensor
    until: int
    early: bool
    precision: Precision = "float32"
    company: Company = "any"

    @property
    def has_samples(self) -> bool:
        return self.until > self.state.emitted

    @property
    def call(self) -> VocoderCall:
        """The call of the vocoder: the new samples, and, when early, a frame past them for the fade."""
        state, until = self.state, self.until - self.state.start + int(self.early)
        end = min(until, self.mel_in_context.shape[1])
        return VocoderCall(self.mel_in_context, state.emitted - state.start, end, self.precision, self.company)


@dataclass(frozen=True)
class VocoderCall:
    """A mel (M, T), context included, and the frames of it whose samples are wanted."""

    mel: Tensor
    begin: int
    end: int
    precision: Precision = "float32"
    company: Company = "any"


def call_vocoder(vocoder: BigVGAN | Vocos, calls: Sequence[VocoderCall], regions: Regions = EAGER) -> list[Tensor]:
    """Samples (W,) in [-1, 1] of each call, in order: one call, a region, for each length, share and precision."""

    def together(group: Sequence[VocoderCall]) -> Sequence[Tensor]:
        begin, end, name = group[0].begin, group[0].end, group[0].precision
        run_by = runner(regions, [call.company for call in group])
        rows = [*group, *[group[0]] * (run_by.rows(len(group)) - len(group))]

        def region(mels: Tensor) -> tuple[Tensor]:
            wave: Tensor = vocoder(mels, begin, end)
            return (wave.clamp(-1.0, 1.0),)

        with precision(name):
            (waves,) = run_by.run(("vocode", begin, end, name), region, [torch.stack([call.mel for call in rows])])
        return waves[: len(group)].unbind()

    return in_groups(calls, [(call.mel.shape[1], call.begin, call.end, call.precision) for call in calls], together)


def vocoder_input(
    vocoder: Vocoder, state: VocoderState, final: Tensor, ahead: Tensor, *, early: bool, last: bool
) -> VocoderInput:
    """final (M, T): the next mel; ahead (M, T'): the unfinished mel after it, read as right context when ``early``.

    Unless early, samples wait for ``vocoder.context`` final frames after them: then streamed == whole. Early with
    no mel to look at, the last STAND_IN_FRAMES wait, and the last of them stands in for as many after it.
    """
    context, end = vocoder.context, state.end + final.shape[1]
    mel = torch.cat([state.mel, final], dim=1)
    if not early or last:
        return VocoderInput(state, mel, mel, end if last else max(state.emitted, end - context), early)
    if ahead.shape[1]:
        return VocoderInput(state, mel, torch.cat([mel, ahead[:, :context]], dim=1), end, early)
    padded = torch.cat([mel, mel[:, -1:].expand(-1, STAND_IN_FRAMES)], dim=1)
    return VocoderInput(state, mel, padded, max(state.emitted, end - STAND_IN_FRAMES), early)


def vocode(
    vocoder: Vocoder, inputs: Sequence[VocoderInput], regions: Regions = EAGER
) -> list[tuple[Tensor, VocoderState]]:
    """The samples (W,) of each input, W >= 0, and the state of its stream after them."""
    waves = iter(call_vocoder(vocoder, [one.call for one in inputs if one.has_samples], regions))
    return [join_samples(vocoder, one, next(waves)) if one.has_samples else wait_for_context(one) for one in inputs]


def wait_for_context(given: VocoderInput) -> tuple[Tensor, VocoderState]:
    """No sample yet: the mel waits for its right context."""
    return given.mel.new_zeros(0), replace(given.state, mel=given.mel)


def join_samples(vocoder: Vocoder, given: VocoderInput, wave: Tensor) -> tuple[Tensor, VocoderState]:
    """wave (W,), what ``given.call`` asked for -> the samples that are new, joined to those before them."""
    state, hop = given.state, vocoder.hop
    split = (given.until - state.emitted) * hop
    samples, beyond = wave[:split], wave[split : split + hop]
    if state.fade is not None:  # the same instant, made twice: from the unfinished mel and from the final one
        ramp = torch.linspace(0.0, 1.0, hop, device=wave.device)
        samples = torch.cat([torch.lerp(state.fade, samples[:hop], ramp), samples[hop:]])
    keep = max(0, given.until - vocoder.context)
    # copies: a view would keep the sound of the whole batch in memory
    fade = beyond.clone() if given.early and len(beyond) == hop else None
    return samples.clone(), VocoderState(given.mel[:, keep - state.start :], keep, given.until, fade)
