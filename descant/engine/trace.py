"""A deterministic greedy pass over one conversation, written down: how to check descant against another system.

It is the streaming path itself (`engine/stages.py`) with notes of what is drawn, and two differences:
the sound is made in one piece, because windowed decoding and a whole-utterance solve differ by design; and a text cut
by its limit has no row for its last token, as in transformers, which never reads it back (`chat` speaks it).

To compare with transformers 5.23's `generate`, mind that it drops an attention mask of ones, and that without a mask
its Talker leaves out the embeddings of the pad and start codes and the positions of media: pad the prompt with one
token on the left, so that the mask stays.
"""

from __future__ import annotations

import torch
from torch import Tensor

from descant.engine.limits import most_tokens
from descant.engine.models import Models, Stores, new_stores
from descant.engine.prefill import encode
from descant.engine.session import Phase, Request, Session, SpeechStream
from descant.engine.stages import Stages
from descant.model.codec import Token2Wav
from descant.types import Decoding

NOISE_SEED = 0
REFERENCE_DECODING = Decoding()  # the reference's solver: RK4, 10 points, guidance 0.5, sway -1


class NotedStages(Stages):
    """Stages that write down, of one session, the raw logits (before the processors) and the id drawn at each step."""

    def __init__(self, models: Models, stores: Stores):
        super().__init__(models, stores, "off")
        self.texts = Notes()
        self.codes = Notes()

    def choose_token(self, session: Session) -> None:
        self.texts.add(session.text.logits, session.text.drawn)
        super().choose_token(session)

    def choose_code(self, speech: SpeechStream) -> None:
        [drawn] = speech.drawn
        self.codes.add(speech.logits, drawn)
        super().choose_code(speech)


class Notes:
    """The notes of one stream."""

    def __init__(self) -> None:
        self._logits: list[Tensor] = []
        self._ids: list[int] = []

    def add(self, logits: Tensor | None, drawn: int | None) -> None:
        """The raw logits (V,) of a step, and what was drawn."""
        assert logits is not None and drawn is not None
        self._logits.append(logits.float().cpu().clone())
        self._ids.append(drawn)

    def logits(self) -> Tensor:
        """All logits, (steps, V)."""
        return torch.stack(self._logits) if self._logits else torch.empty(0, 0)

    def ids(self) -> Tensor:
        """All ids, (steps,) int64."""
        return torch.tensor(self._ids, dtype=torch.long)


def trace_answer(models: Models, request: Request) -> dict[str, Tensor]:
    """Run ``request`` (its samplers greedy) to its end. All tensors are on the CPU; int64 or float32:

    - input_ids (T,), position_ids (3, T): the prompt;
    - audio_features (K, D): encoder rows of all clips; vision_features (N, D): of all images, then all videos;
    - text_logits (G, V): raw, of each step, the one that drew the stop id included; text_ids (G,): what was drawn;
    - talker_logits (S, C): raw, of each step, the one that drew the stop code included; codes (N,): without that one;
    - mel (M, F): log-amplitude mel of one whole-utterance solve (RK4, 10 points, guidance 0.5, sway -1), starting from
      ``x0 = torch.randn(1, F, M, generator=torch.Generator().manual_seed(0))``, float32 on the CPU, F = codes * repeats
      (what the reference draws right after ``torch.manual_seed(0)``); wav (W,): that mel through the vocoder, 24 kHz.

    The last four are there only for a request with a voice.
    """
    with torch.inference_mode():
        written = write_down(models, request)
    with torch.inference_mode(False):  # also when the worker asks, who is always in it
        return {name: tensor.cpu().clone(memory_format=torch.contiguous_format) for name, tensor in written.items()}


def write_down(models: Models, request: Request) -> dict[str, Tensor]:
    """The result of ``trace_answer``, still on the models' device."""
    thinker = models.thinker
    prompt = request.prompt
    stages = NotedStages(models, new_stores(models, *most_tokens(request)))
    session = stages.open(request)
    speech = session.speech
    stages.read({session: session.context.unread})
    if session.error is not None:
        raise session.error
    while session.phase is Phase.THINKING or (speech is not None and speech.singing):
        thinking = session.phase is Phase.THINKING
        stages.think([session])
        cut = thinking and session.reason == "length" and len(session.text.ids) > 1
        if cut and speech is not None and speech.singing:
            del speech.states[-2]  # of the last token; behind it stands text_end
        stages.talk([session])
        if session.error is not None:
            raise session.error
    sources = [span.source for span in prompt.spans]
    heard = encode(models, [source for source in sources if source.kind == "audio"])
    seen = encode(models, [s for kind in ("image", "video") for s in sources if s.kind == kind])
    width = thinker.cfg.text.hidden_size
    out = {
        "input_ids": prompt.ids,
        "position_ids": prompt.positions,
        "audio_features": concatenate_features(heard, width),
        "vision_features": concatenate_features(seen, width),
        "text_logits": stages.texts.logits(),
        "text_ids": stages.texts.ids(),
    }
    if speech is not None and models.token2wav is not None:
        out |= {"talker_logits": stages.codes.logits(), **decode_whole(models.token2wav, speech)}
    return out


def concatenate_features(rows: list[Tensor], width: int) -> Tensor:
    """Encoder rows of all media, (K, D) float32."""
    return torch.cat(rows).float() if rows else torch.empty(0, width)


def decode_whole(token2wav: Token2Wav, speech: SpeechStream) -> dict[str, Tensor]:
    """codes (C,), mel (M, F) and wav (W,) of a whole utterance."""
    codes = torch.tensor(speech.codes, dtype=torch.long)
    frames = len(codes) * token2wav.cfg.dit.repeats
    bins = token2wav.cfg.dit.mel_dim
    if not frames:
        return {"codes": codes, "mel": torch.empty(bins, 0), "wav": torch.empty(0)}
    x0 = torch.randn(1, frames, bins, generator=torch.Generator().manual_seed(NOISE_SEED))
    mel = token2wav.mel_whole(codes, speech.voice, x0[0], REFERENCE_DECODING)
    return {"codes": codes, "mel": mel, "wav": token2wav.vocoder(mel[None])[0].clamp(-1, 1)}
