"""One codec stream by itself, for measurements: push, finish, and the mel that it sings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from descant.model.codec import CodecState, PreparedVoice, Token2Wav
from descant.types import Decoding


def push(net: Token2Wav, state: CodecState, codes: Tensor | Sequence[int]) -> tuple[Tensor, CodecState]:
    """Take codes (C,); give the samples (W,) that are ready now."""
    return drain(net, net.feed(state, codes))


def finish(net: Token2Wav, state: CodecState) -> tuple[Tensor, CodecState]:
    """No more codes: give the rest of the samples, a partial last block included."""
    return drain(net, net.close(state))


def drain(net: Token2Wav, state: CodecState) -> tuple[Tensor, CodecState]:
    """All windows that are due, one after another."""
    pieces = [state.codes.new_zeros(0, dtype=torch.float32)]
    while net.due(state):
        [(samples, state)] = net.step([state])
        pieces.append(samples)
    return torch.cat(pieces), state


@torch.no_grad()
def mel_windowed(
    net: Token2Wav, codes: Tensor | Sequence[int], voice: PreparedVoice, seed: int, decoding: Decoding
) -> Tensor:
    """The mel (M, T) that a stream of these codes sings: what ``mel_whole`` is compared with."""
    state = net.close(net.feed(net.start(voice, seed, decoding), codes))
    pieces = [state.vocoder.mel]
    while (plan := net.next_window(state)) is not None and plan.count:
        [(mel, state)] = net.mel_windows([(state, plan)])
        pieces.append(mel[:, : plan.count * net.cfg.dit.block_size])
    return torch.cat(pieces, dim=1)
