"""A whole answer, from messages to waveform: descant and the reference load the same folder and say the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Qwen2_5OmniForConditionalGeneration

import descant
from descant.config import InputsConfig
from descant.engine import graphs, prefill, stages, trace
from descant.engine.engine import Engine
from descant.inputs import door
from descant.inputs.audio import log_mel
from descant.inputs.image import image_grid
from descant.inputs.video import sample_clip, video_grid
from descant.tokens import PixelGrid
from descant.types import Budget, Clip, Message
from descant.weights.checkpoint import load_checkpoint
from tests import tiny
from tests.conftest import Record
from tests.parity.reference import relative

PENALTY = 1.5  # of the text: random weights would else say one word for ever
WORDS, CODES = 7, 26  # more codes than words: reply rows, the end row and pad rows are all eaten
RANDOM = np.random.default_rng(0)
SMALL = {"video_min_pixels": 3136, "video_max_pixels": 8 * 784}


def picture(height: int, width: int) -> descant.Image:
    return descant.Image(RANDOM.integers(0, 256, (height, width, 3), dtype=np.uint8))


def sound(seconds: float) -> descant.Audio:
    return descant.Audio(0.1 * RANDOM.standard_normal(round(16000 * seconds)).astype(np.float32), 16000)


def clip(frames: int, *, seconds_of_sound: float | None = None) -> descant.Video:
    heard = None if seconds_of_sound is None else sound(seconds_of_sound).source
    seen = RANDOM.integers(0, 256, (frames, 56, 84, 3), dtype=np.uint8)
    return descant.Video(Clip(seen, 2.0, heard), use_audio=heard is not None)


TALKS: dict[str, list[Message]] = {
    "text": [descant.user("How are you?")],
    "one image": [descant.user("What is this? ", picture(59, 131))],
    "several images": [descant.user(picture(28, 28), picture(97, 40), " or ", picture(60, 90), "?")],
    "audio 0.03 s": [descant.user(sound(0.03), "what?")],
    "audio 2 s": [descant.user(sound(2.0))],
    "audio 2.01 s": [descant.user(sound(2.01))],
    "audio 31 s": [descant.user(sound(31.0))],
    "silent video": [descant.user(clip(6), "what happens?")],
    "video, sound longer": [descant.user(clip(4, seconds_of_sound=5.2), "what happens?")],
    "video longer than its sound": [descant.user(clip(12, seconds_of_sound=1.1), "what happens?")],
    "mixed, several turns": [
        descant.system("Be brief."),
        descant.user("Look ", picture(70, 61), " and hear ", sound(0.7)),
        descant.assistant("A noise."),
        descant.user(clip(4), "and then?"),
    ],
    "mixed, sound in videos": [
        descant.user(picture(70, 61), clip(4, seconds_of_sound=2.6)),
        descant.assistant("Snow."),
        descant.user(clip(6, seconds_of_sound=1.5), "and then?"),
    ],
}


@dataclass(frozen=True)
class Pair:
    reference: Any
    ours: descant.Omni


@pytest.fixture(scope="module", params=["7b", "3b"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder: Path = tmp_path_factory.mktemp("whole") / request.param
    reference = Qwen2_5OmniForConditionalGeneration(tiny.reference_config(request.param, tied=request.param == "3b"))
    tiny.enliven(reference.eval())
    calm(reference)
    reference.save_pretrained(folder, max_shard_size="400KB")
    tiny.write_side_files(folder, SMALL)
    reference.load_speakers(folder / "spk_dict.pt")
    ours = load_checkpoint(folder)
    text = replace(ours.generation.text, repetition_penalty=PENALTY)
    return Pair(reference, descant.Omni(replace(ours, generation=replace(ours.generation, text=text))))


def calm(model: Any) -> None:
    """Random weights that are neither deaf to what they read (a tied head would repeat its last token) nor chaotic (a
    random vocoder would make 1e-2 of the 1e-5 by which two mels differ)."""
    with torch.no_grad():
        model.thinker.get_input_embeddings().weight.mul_(0.2)
        for weight in model.token2wav.code2wav_bigvgan_model.parameters():
            weight.mul_(0.65 if weight.ndim > 1 else 1.0)


@dataclass(frozen=True)
class WholeMedia:
    """The media of a conversation in order of appearance, each in one piece: log-mels (M, F) and pixels."""

    audio: list[Tensor]
    images: list[PixelGrid]
    videos: list[PixelGrid]


def whole_media(talk: list[Message], inputs: InputsConfig) -> WholeMedia:
    media, budget = WholeMedia([], [], []), Budget()
    for part in (part for message in talk for part in message.content):
        if isinstance(part, descant.Image):
            media.images.append(image_grid(door.check_pixels(part.source, Budget()), inputs))
        elif isinstance(part, descant.Audio):
            media.audio.append(log_mel(door.check_samples(part.source, 16000, 16000, budget), inputs))
        elif isinstance(part, descant.Video):
            seen = door.check_clip(part.source, 16000, budget, with_sound=part.use_audio)
            media.videos.append(video_grid(sample_clip(seen.frames, seen.fps, inputs), inputs))
            if part.use_audio:
                media.audio.append(log_mel(seen.sound, inputs))
    return media


def reference_inputs(ids: Tensor, media: WholeMedia, talk: list[Message]) -> dict[str, Any]:
    """Keyword arguments of the reference's generate. Pixels go in under the one spelling that it accepts.

    One pad on the left: transformers 5.23 drops a mask of ones, and without a mask its Talker leaves out the embeddings
    of the pad and start codes and the positions of media (`attention_mask is not None` in its forward).
    """
    videos = [part for message in talk for part in message.content if isinstance(part, descant.Video)]
    inputs: dict[str, Any] = {
        "input_ids": F.pad(ids, (1, 0), value=tiny.ID["<|endoftext|>"])[None],
        "attention_mask": F.pad(torch.ones(1, len(ids), dtype=torch.long), (1, 0)),
        "use_audio_in_video": any(video.use_audio for video in videos),
    }
    if media.audio:
        width = max(mel.shape[1] for mel in media.audio)
        inputs["input_features"] = torch.stack([F.pad(mel, (0, width - mel.shape[1])) for mel in media.audio])
        lengths = torch.tensor([mel.shape[1] for mel in media.audio])
        inputs["feature_attention_mask"] = (torch.arange(width) < lengths[:, None]).long()
    if media.images:
        inputs["thinker_pixel_values"] = torch.cat([image.patches for image in media.images])
        inputs["image_grid_thw"] = torch.tensor([image.grid for image in media.images])
    if media.videos:
        inputs["thinker_pixel_values_videos"] = torch.cat([video.patches for video in media.videos])
        inputs["video_grid_thw"] = torch.tensor([video.grid for video in media.videos])
        inputs["video_second_per_grid"] = torch.ones(len(media.videos))
    return inputs


def ask_reference(pair: Pair, talk: list[Message], stop: int, words: int = WORDS) -> dict[str, Tensor]:
    """What a trace has, by `generate`: text ids, codes, the raw logits of both, and the waveform."""
    kept: dict[str, Tensor] = {}
    rows: dict[str, list[Tensor]] = {"text_logits": [], "talker_logits": []}

    def keep_codes(module: Any, args: tuple[Tensor, ...]) -> None:
        kept["codes"] = args[0][0].clone()

    def keep(name: str) -> Any:
        return lambda module, args, output: rows[name].append(output.logits[0, -1].clone())

    reference = pair.reference
    hooks = [
        reference.token2wav.register_forward_pre_hook(keep_codes),
        reference.thinker.register_forward_hook(keep("text_logits")),
        reference.talker.register_forward_hook(keep("talker_logits")),
    ]
    prompt = pair.ours._prompt(talk, {"speech": False})
    torch.manual_seed(trace.NOISE_SEED)  # nothing is drawn before the noise of the DiT
    sequences, wav = reference.generate(
        **reference_inputs(prompt.ids, whole_media(talk, pair.ours.checkpoint.inputs), talk),
        thinker_max_new_tokens=words,
        thinker_eos_token_id=stop,
        thinker_repetition_penalty=PENALTY,
        talker_max_new_tokens=CODES,
        talker_do_sample=False,
        talker_eos_token_id=[tiny.CODEC["pad"], tiny.CODEC["end"]],
    )
    for hook in hooks:
        hook.remove()
    kept |= {name: torch.stack(logits) for name, logits in rows.items()}
    return kept | {"text_ids": sequences[0, 1 + len(prompt.ids) :], "wav": wav}


def stopping(omni: descant.Omni, stop: int) -> descant.Omni:
    """The same model with another stop id."""
    other = descant.Omni(omni.checkpoint)
    other.models = replace(omni.models, stop_ids=frozenset({stop}))
    other.engine = Engine(other.models)
    return other


def late_id(omni: descant.Omni, talk: list[Message]) -> int:
    """An id that the greedy answer reaches only after some words: taken as the stop id, the answer ends by itself."""
    ids = omni.trace(talk, max_text=WORDS - 1, max_codes=1)["text_ids"].tolist()
    return max(ids, key=ids.index)


@pytest.mark.parametrize("name", TALKS)
def test_a_whole_answer_is_the_reference_s(pair: Pair, name: str, record: Record) -> None:
    talk = TALKS[name]
    stop = late_id(pair.ours, talk)
    theirs, ours = (
        ask_reference(pair, talk, stop),
        stopping(pair.ours, stop).trace(talk, max_text=WORDS, max_codes=CODES),
    )
    assert ours["text_ids"].tolist() == theirs["text_ids"].tolist()
    assert ours["text_ids"][-1] == stop and len(ours["text_ids"]) > 1
    assert ours["codes"].tolist() == theirs["codes"].tolist()
    assert len(set(ours["codes"].tolist())) > 3
    for kind in ("text_logits", "talker_logits"):
        record(f"whole answer, {kind.replace('_', ' ')}", name, relative(ours[kind], theirs[kind]))
        assert relative(ours[kind], theirs[kind]) < 1e-4
    gap = float((ours["wav"] - theirs["wav"]).abs().max())
    record("whole answer, waveform", name, gap)
    assert ours["wav"].shape == theirs["wav"].shape and gap < 1e-3 < 0.02 < float(theirs["wav"].abs().max())


def test_a_cut_answer_is_the_reference_s(pair: Pair) -> None:
    """The reference never reads its last token back, so it does not speak it; `chat` does: there the codes differ."""
    talk = TALKS["one image"]
    ours = pair.ours.trace(talk, max_text=WORDS, max_codes=CODES)
    same, more = (ask_reference(pair, talk, tiny.ID["<|im_end|>"], words) for words in (WORDS, WORDS + 1))
    assert ours["text_ids"].tolist() == same["text_ids"].tolist() == more["text_ids"].tolist()[:-1]
    assert ours["codes"].tolist() == same["codes"].tolist()
    assert ours["codes"].tolist() != more["codes"].tolist()


def test_the_stream_says_what_the_trace_says(pair: Pair) -> None:
    talk = TALKS["text"]
    omni = stopping(pair.ours, late_id(pair.ours, talk))  # a text cut by its limit would differ by its last word
    traced = omni.trace(talk, max_text=WORDS, max_codes=CODES)
    greedy = descant.Sampling(repetition_penalty=1.05, max_tokens=CODES)
    system = descant.system("You are a helpful assistant.")
    events = list(omni.chat([system, *talk], max_tokens=WORDS, talker_sampling=greedy, seed=1))
    assert events[-1].usage.codes == len(traced["codes"])
    assert events[-1].text == omni.models.tokenizer.decode(traced["text_ids"].tolist()[:-1])


BROKEN: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "media embeddings reach the Talker": ("prompt_rows", lambda real: lambda e, h, mask: real(e, h, mask & False)),
    "reply rows without embeddings": ("reply_rows", lambda real: lambda e, h: h),
    "codes are not fed back": ("step_row", lambda real: lambda talker, codes, rows: real(talker, codes * 0, rows)),
    "no speaker row": ("speaker_row", lambda real: lambda *rows: real(*rows) * 0),
    "positions off by two": ("StepRow", lambda real: lambda kv, token, at, *rest: real(kv, token, at + 2, *rest)),
}


HOMES = {"prompt_rows": prefill, "reply_rows": graphs, "step_row": graphs}


def test_the_comparison_sees_each_broken_formula(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    talk = TALKS["mixed, several turns"]
    honest = pair.ours.trace(talk, max_text=WORDS, max_codes=12)
    for fault, (name, breaking) in BROKEN.items():
        with monkeypatch.context() as patch:
            home = HOMES.get(name, stages)
            patch.setattr(home, name, breaking(getattr(home, name)))
            broken = pair.ours.trace(talk, max_text=WORDS, max_codes=12)
        differs = broken["codes"].tolist() != honest["codes"].tolist()
        assert differs or relative(broken["talker_logits"], honest["talker_logits"]) > 1e-3, fault
