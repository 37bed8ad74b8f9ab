"""A microphone: samples in any cuts -> log-mel blocks while the speech is still coming in.

    pcm, any rate -> soxr, streaming -> 16 kHz -> frames whose 25 ms are there -> blocks of 2 s -> floor

The law: any cuts give the features of ``log_mel`` of the whole clip, bit for bit. Three things stand in the way of it:
- the resampler looks ahead: it runs as a stream, which yields the samples of soxr's one-shot form;
- the last frames see samples that are not there yet: a frame is made when its window is full, the rest by ``finish``;
- the floor hangs on the loudest moment of the whole clip: unfloored spectra are kept, and a louder moment gives a new
  ``version`` to exactly those blocks that hold a value under the new floor.

Axes: W samples, M mel bins, F mel frames (10 ms each).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soxr
import torch
from torch import Tensor

from descant.config import InputsConfig, audio_tokens
from descant.errors import ConfigError, MediaError, SessionError
from descant.inputs.audio import GROUP_FRAMES, check_length, floored, log_spectra, mel_frames, pad_end, pad_start
from descant.inputs.audio_file import Samples, check_sound
from descant.types import Budget

ENCODER_BLOCK_FRAMES = 200  # mel frames that the encoder reads together: 2 * n_window, 2 s


@dataclass(frozen=True)
class AudioBlock:
    """One block of the encoder: mel (M, F), F = ENCODER_BLOCK_FRAMES but for the last one.

    version: counts the changes of ``mel``. final: its frames are all there, so that only a louder moment changes them;
    a block that is not final grows.
    """

    index: int
    mel: Tensor
    version: int
    final: bool

    @property
    def tokens(self) -> int:
        """Tokens of the prompt that it fills: 50 for a whole block. A beginning shorter than 3 frames has none yet."""
        return audio_tokens(self.mel.shape[1])


class LiveAudio:
    """The sound of one turn, as it comes. One reader, one writer; nothing is kept after the turn."""

    def __init__(self, inputs: InputsConfig, *, block: int = ENCODER_BLOCK_FRAMES, budget: Budget | None = None):
        """block: the encoder's block in mel frames. Only a multiple of 4 becomes whole tokens (40 ms)."""
        if block < 4 or block % 4:
            raise ConfigError(f"a block of {block} mel frames gives no whole tokens; expected n_window to be even")
        self._inputs = inputs
        self._block = block
        self._budget = budget or Budget()
        self._rate = 0  # Hz of what is pushed; 0 before the first push
        self._pushed = 0  # samples at that rate
        self._raw: list[Samples] = []  # all that was pushed, for `without`
        self._resampler: soxr.ResampleStream | None = None
        self._count = 0  # samples at the model's rate
        self._new: list[Samples] = []  # not looked at yet
        self._wave = torch.empty(0)  # from the first sample that the group of frames at ``_whole`` sees
        self._started = False  # whether ``_wave`` has its reflected start
        self._whole = 0  # frames of finished groups, which are never computed again
        self._frames = 0  # valid frames so far
        self._log = torch.empty(inputs.feature_size, 0)  # unfloored; grows by doubling
        self._loudest = torch.tensor(-torch.inf)
        self._blocks: list[AudioBlock] = []
        self._quietest: list[Tensor] = []  # the least unfloored value of each block
        self._floor = torch.tensor(-torch.inf)  # of ``_blocks``
        self._closed: str | None = None  # why nothing more may come

    @property
    def seconds(self) -> float:
        """Seconds of sound that were pushed."""
        return self._pushed / self._rate if self._rate else 0.0

    def push(self, pcm: bytes | npt.NDArray[np.generic], rate: int) -> None:
        """Take mono samples at ``rate`` Hz: little-endian 16-bit PCM as bytes, or (W,) int16, or (W,) float in [-1, 1].

        A refused push leaves everything as it was. Raises MediaError: "audio.odd_bytes", "audio.bad_array",
        "audio.not_finite", "audio.bad_rate", "audio.rate_changed", "audio.too_long"; SessionError after the end.
        """
        if self._closed is not None:
            raise SessionError(f"sound was pushed after {self._closed}; expected none. Push it in a new turn.")
        samples = to_samples(pcm)
        self.check(len(samples), rate)
        if not len(samples):
            return
        if not self._rate:
            self._rate = rate
            if rate != self._inputs.sampling_rate:
                self._resampler = soxr.ResampleStream(
                    rate, self._inputs.sampling_rate, 1, dtype="float32", quality="HQ"
                )
        self._pushed += len(samples)
        self._raw.append(samples)
        self._keep(samples if self._resampler is None else self._resampler.resample_chunk(samples))

    @property
    def limit_s(self) -> float:
        """The most seconds of sound that are heard."""
        return min(self._budget.audio_s, self._inputs.max_audio_s)

    def without(self, seconds: float) -> LiveAudio:
        """The same sound as if its first ``seconds`` had never been pushed."""
        rest = LiveAudio(self._inputs, block=self._block, budget=self._budget)
        if self._raw:
            rest.push(np.concatenate(self._raw)[round(seconds * self._rate) :], self._rate)
        return rest

    def blocks(self) -> list[AudioBlock]:
        """All blocks so far. A block whose version is known need not be encoded again."""
        if self._new and self._closed is None:
            self._wave = torch.cat([self._wave, *map(torch.from_numpy, self._new)])
            self._new.clear()
            if not self._started and len(self._wave) > self._inputs.n_fft // 2:
                self._wave, self._started = pad_start(self._wave, self._inputs), True
            if self._started:
                self._frames = self._analyse()
                self._update()
        return list(self._blocks)

    def check_end(self) -> None:
        """Raise what ``finish`` would: MediaError "audio.empty", "audio.too_short"."""
        check_length(self._expected(), self._inputs)

    def finish(self) -> Tensor:
        """End the sound; now every block is final. Returns the features (M, F) of the whole.

        Raises MediaError "audio.empty" or "audio.too_short", and then more may still be pushed; SessionError after the
        end.
        """
        if self._closed is not None:
            raise SessionError(f"an end of the sound was asked for after {self._closed}. Open a new turn.")
        self.check_end()
        self.blocks()
        if self._resampler is not None:
            tail = self._resampler.resample_chunk(np.empty(0, np.float32), last=True)
            self._keep(tail)
        end = torch.cat([self._wave, *map(torch.from_numpy, self._new)])
        end = pad_end(end, self._count, self._inputs)
        self._wave = end if self._started else pad_start(end, self._inputs)
        self._analyse()
        self._frames = mel_frames(self._count, self._inputs)
        self._close("its end")
        self._update()
        return torch.cat([block.mel for block in self._blocks], dim=1)

    def cancel(self) -> None:
        """Drop everything. Harmless when repeated."""
        self._close("the turn was cancelled")
        self._blocks.clear()
        self._log = torch.empty(0)

    # ---------------------------------------------------------------- inside

    def check(self, more: int, rate: int) -> None:
        """Refuse samples for their rate or their number."""
        check_sound(1, 0, rate, self._budget)
        if self._rate not in (0, rate):
            raise MediaError(
                "audio.rate_changed",
                f"the sound came at {self._rate} Hz and now at {rate} Hz; expected one rate in a turn. Resample it.",
            )
        limit = self.limit_s
        if self._pushed + more > limit * rate:
            raise MediaError(
                "audio.too_long",
                f"with this push the sound would last {(self._pushed + more) / rate:.2f} s; at most {limit:g} s are "
                "heard in a turn. Let the model answer.",
            )

    def _expected(self) -> int:
        """Samples at the model's rate when this is all: rounded half up, as soxr does."""
        return int(self._pushed * self._inputs.sampling_rate / self._rate + 0.5) if self._rate else 0

    def _keep(self, samples: Samples) -> None:
        self._count += len(samples)
        if len(samples):
            self._new.append(samples)

    def _close(self, why: str) -> None:
        self._closed = why
        self._resampler = None
        self._new.clear()
        self._raw.clear()
        self._wave = torch.empty(0)

    def _analyse(self) -> int:
        """Spectra of the frames whose windows are full; how many there are from the start of the clip.

        Frames are grouped as ``log_mel`` groups them. An unfinished group is computed again when more of it is there.
        """
        log = log_spectra(self._wave, self._inputs)
        known = self._whole + log.shape[1]
        if known > self._log.shape[1]:
            room = max(0, max(known, 2 * self._log.shape[1]) - self._whole)
            self._log = torch.cat([self._log[:, : self._whole], log.new_empty(len(log), room)], dim=1)
        self._log[:, self._whole : known] = log
        if log.numel():
            self._loudest = torch.maximum(self._loudest, log.max())
        done = log.shape[1] // GROUP_FRAMES * GROUP_FRAMES
        self._whole += done
        self._wave = self._wave[done * self._inputs.hop_length :].clone()  # no view that would keep the rest alive
        return known

    def _update(self) -> None:
        """Bring the blocks up to date: new ones, grown ones, and those that the floor has risen into."""
        floor = self._loudest - 8.0
        for index in range(-(-self._frames // self._block)):
            log = self._log[:, index * self._block : min((index + 1) * self._block, self._frames)]
            old = self._blocks[index] if index < len(self._blocks) else None
            final = log.shape[1] == self._block or self._closed is not None
            grown = old is None or old.mel.shape[1] != log.shape[1]
            if grown:
                self._quietest[index:] = [log.min()]
            if old is None:
                self._blocks.append(AudioBlock(index, floored(log, self._loudest), 0, final))
            elif grown or self._quietest[index] < floor != self._floor:
                self._blocks[index] = AudioBlock(index, floored(log, self._loudest), old.version + 1, final)
            elif final != old.final:
                self._blocks[index] = AudioBlock(index, old.mel, old.version, final)
        self._floor = floor


def to_samples(pcm: bytes | npt.NDArray[np.generic]) -> Samples:
    """16-bit PCM bytes, or (W,) int16 or float -> a copy (W,) float32 in [-1, 1]. Raises MediaError."""
    if isinstance(pcm, bytes | bytearray | memoryview):
        if len(bytes(pcm)) % 2:
            raise MediaError(
                "audio.odd_bytes",
                f"{len(bytes(pcm))} bytes of 16-bit PCM were pushed; expected an even number. Cut between samples.",
            )
        pcm = np.frombuffer(bytes(pcm), dtype="<i2")
    if not isinstance(pcm, np.ndarray):
        raise MediaError(
            "audio.bad_array",
            f"the sound is a {type(pcm).__name__}; expected the bytes of 16-bit PCM, or an array (W,), mono.",
        )
    if pcm.ndim != 1 or not (pcm.dtype.kind == "f" or (pcm.dtype.kind == "i" and pcm.dtype.itemsize == 2)):
        raise MediaError(
            "audio.bad_array",
            f"the sound is an array {pcm.shape} of {pcm.dtype}; expected (W,) of int16, or of float in [-1, 1], mono.",
        )
    with np.errstate(over="ignore"):  # a float64 too large for float32 becomes infinite, and is refused below
        samples = pcm.astype(np.float32)
    if pcm.dtype.kind == "i":
        samples /= np.float32(2**15)
    if not np.isfinite(samples).all():
        raise MediaError("audio.not_finite", "the sound holds NaN or infinite samples; expected numbers in [-1, 1].")
    return samples
