"""Live input: what a user says and shows, as tokens that can be prefilled while it is still coming in.

    microphone --LiveAudio---> blocks of 2 s  --+
                                                +--> one segment, growing --lay_out--> PromptTokens
    camera ----LiveFrames--> grids of 1 s     --+

    time      |<------- 2 s ------->|<------- 2 s ------->|
    tokens    [bos][V0 V1][A block 0 ][V2 V3][A block 1 : so far]  ...        | eos at the end only
               \\_______ settled _______________/\\_ still grows _/

The law: pushed in any cuts, the tokens at the end are those of ``PromptBuilder.build`` for the message with the same
Audio or Video. Tokens once given stay, but for the features of blocks that grow or that a louder moment changes, and
where another stream joins. An engine prefills ``tokens()``, and later rolls its cache back to
``unchanged(before, now)``.

Axes: T tokens, M mel bins, F mel frames, N patches.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from descant.config import InputsConfig, MediaIds
from descant.errors import MediaError, SessionError
from descant.inputs.audio_file import Samples
from descant.inputs.layout import AudioSeg, AudioVideoSeg, Segment, VideoSeg, lay_out
from descant.inputs.live_sight import LiveFrames
from descant.inputs.live_sound import ENCODER_BLOCK_FRAMES, AudioBlock, LiveAudio, to_samples
from descant.inputs.prompt import encoder_input
from descant.inputs.video import seconds_per_grid
from descant.tokens import NO_TOKENS, EncoderInput, PromptTokens
from descant.types import Budget

KEPT_SHARE = 0.75  # of the limit of a turn, when its beginning is forgotten
SILENCE_S = 20.0  # of a turn in which nothing was said yet: what is older is forgotten, but for the last of it
SILENCE_KEPT_S = 2.0
QUIET_RMS = 0.0056  # -45 dB of full scale: a room in which nobody speaks
LOUDNESS_S = 0.02  # over which loudness is measured


def is_said(samples: Samples, rate: int) -> bool:
    """True if a sound (W,) is anywhere louder than a quiet room."""
    size = max(1, round(LOUDNESS_S * rate))
    padded = np.pad(samples, (0, -len(samples) % size)).reshape(-1, size)
    return bool((np.square(padded).mean(axis=1) > QUIET_RMS**2).any())


class LiveMedia:
    """The live medium of one turn: sound, pictures, or pictures with their sound on one clock.

    Nothing is laid out before each expected stream has shown itself: its first rows tell which kind of segment it is.
    When a stream never comes, the turn ends as that of the other alone; when none does, without rows. A stream that was
    not expected may join; what was laid out without it is laid out anew.
    """

    def __init__(
        self,
        inputs: InputsConfig,
        ids: MediaIds,
        *,
        sound: bool = True,
        sight: bool = False,
        block: int = ENCODER_BLOCK_FRAMES,
        budget: Budget | None = None,
    ):
        """sound, sight: which streams to expect.

        block: mel frames that the encoder reads together. The clock of frames starts with the sound; where none is
        expected, with the first frame.
        """
        if not (sound or sight):
            raise SessionError("live input of neither sound nor pictures was asked for. Expect at least one.")
        self._inputs = inputs
        self._ids = ids
        self._block = block
        self._budget = budget
        self._blocks: list[tuple[AudioBlock, EncoderInput]] = []  # of sound, and what the encoder reads of each
        self._grids: list[EncoderInput] = []  # of pictures
        self._sound = LiveAudio(inputs, block=block, budget=budget) if sound else None
        self._sight = LiveFrames(inputs, start=0.0 if sound else None, budget=budget) if sight else None
        self.forgotten_s = 0.0  # seconds of the turn's beginning that its limit left out
        self._said = False  # something was louder than a room
        self._finished = False
        self._closed: str | None = None  # why nothing more may come

    def push_audio(self, pcm: bytes | npt.NDArray[np.generic], rate: int) -> None:
        """LiveAudio.push. MediaError "audio.late" where sound joins pictures whose clock began long before it."""
        self._check_open("sound was pushed")
        sound = self._sound or LiveAudio(self._inputs, block=self._block, budget=self._budget)
        if self._sound is None and self._sight is not None and self._sight.start > 1 / self._inputs.fps:
            raise MediaError(
                "audio.late",
                f"sound joins pictures whose clock began at {self._sight.start:g} s, and nobody can say when the sound "
                "began. Push the sound first, or count the frames' times from the beginning of the turn.",
            )
        samples = to_samples(pcm)
        sound.check(0, rate)
        self._sound = sound
        step = self._ids.seconds_per_chunk * rate
        for start in range(0, max(1, len(samples)), step):
            self._hear(self._sound, samples[start : start + step], rate)

    def _hear(self, sound: LiveAudio, samples: Samples, rate: int) -> None:
        """Take a chunk of sound (W,) at most; where the turn is full, its beginning is forgotten."""
        over_s = sound.seconds + len(samples) / rate - sound.limit_s
        if over_s > 0:
            sound = self._forget(sound, over_s + (1 - KEPT_SHARE) * sound.limit_s)
        elif not self._said and self._sight is None and sound.seconds > SILENCE_S:
            sound = self._forget(sound, sound.seconds - SILENCE_KEPT_S)
        sound.push(samples, rate)
        self._said = self._said or is_said(samples, rate)
        self._sound = sound

    def push_frame(self, image: object, at: float) -> None:
        """LiveFrames.push. Of a turn with as many pictures as are seen, the beginning is forgotten."""
        self._check_open("a frame was pushed")
        sight = self._sight or LiveFrames(self._inputs, start=0.0, budget=self._budget)
        if sight.full and self._sound is not None:
            self._sound = self._forget(self._sound, (1 - KEPT_SHARE) * self._sound.seconds)
        sight.push(image, at)
        self._sight = sight

    def _forget(self, sound: LiveAudio, seconds: float) -> LiveAudio:
        """Forget the beginning of the turn, at least ``seconds`` of it in whole chunks; returns the sound after it.

        What is left is as if it alone had been pushed.
        """
        chunk = self._ids.seconds_per_chunk
        seconds = min(math.ceil(seconds / chunk) * chunk, math.floor(sound.seconds / chunk) * chunk)
        self.forgotten_s += seconds
        self._blocks.clear()
        self._grids.clear()
        if self._sight is not None:
            self._sight.forget(seconds)
        return sound.without(seconds)

    def tokens(self, *, settled: bool = False) -> PromptTokens:
        """The tokens so far. Of what is given, only features change.

        settled: without the block at the end that still grows, so that only a louder moment changes anything.
        """
        segment = self._segment()
        if segment is None:
            return NO_TOKENS
        sources = [*(source for _, source in self._blocks), *self._grids]
        tokens = lay_out(segment, self._ids, self._inputs.merge_size, sources, growing=not self._finished)
        if not settled or self._finished or not self._blocks or self._blocks[-1][0].final:
            return tokens
        last = self._blocks[-1][1]
        return tokens.head(next((span.first for span in tokens.spans if span.source is last), len(tokens)))

    def finish(self) -> PromptTokens:
        """End all streams; returns all tokens, and none of them changes any more.

        Raises MediaError when the sound is too short to be heard, and then more may still be pushed; SessionError after
        the end.
        """
        self._check_open("an end was asked for")
        if self._sound is not None and self._sound.seconds:
            self._sound.finish()  # first, for it may be refused
        if self._sight is not None:
            self._sight.finish()
        self._finished, self._closed = True, "the end"
        return self.tokens()

    def cancel(self) -> None:
        """Drop everything. Harmless when repeated."""
        self._closed = "the turn was cancelled"
        self._blocks.clear()
        self._grids.clear()
        for stream in (self._sound, self._sight):
            if stream is not None:
                stream.cancel()

    # ---------------------------------------------------------------- inside

    def _check_open(self, what: str) -> None:
        if self._closed is not None:
            raise SessionError(f"{what} after {self._closed}; nothing more may come. Open a new turn.")

    def _update(self) -> None:
        """Bring what the encoders read up to date: blocks of sound that are new or changed, and new pictures."""
        merge = self._inputs.merge_size
        blocks = [block for block in self._sound.blocks() if block.tokens] if self._sound is not None else []
        known = {(block.index, block.version): source for block, source in self._blocks}
        self._blocks = [
            (block, known.get((block.index, block.version)) or encoder_input("audio", block.mel, merge))
            for block in blocks
        ]
        grids = self._sight.shape[0] if self._sight is not None else 0
        for index in range(len(self._grids), grids):
            assert self._sight is not None
            self._grids.append(encoder_input("video", self._sight.grid(index), merge))

    def _segment(self) -> Segment | None:
        """The one segment of what came so far; None while its kind is open, or when nothing came."""
        self._update()
        tokens = sum(source.tokens for _, source in self._blocks)
        grids, height, width = self._sight.shape if self._sight is not None else (0, 0, 0)
        seconds = seconds_per_grid(self._inputs)
        if not self._finished and ((self._sound is not None and not tokens) or (self._sight is not None and not grids)):
            return None
        if grids and tokens:
            return AudioVideoSeg(grids, height, width, seconds, tokens)
        if grids:
            return VideoSeg(grids, height, width, seconds)
        return AudioSeg(tokens) if tokens else None
