"""The user's object: what it refuses and how it says so, and that every way of asking gives the same kind of stream."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import descant
from descant import AudioChunk, Decoding, Finished, MediaError, OptionError, Sampling, TextDelta
from descant.types import READ_ALOUD, TRANSCRIBE
from tests import tiny

ASK = [descant.user("hello")]
SHORT = Sampling(max_tokens=12)
FAST = Decoding(first=1, now=1, ahead=1, solver="euler", points=3, early=True)


@pytest.fixture(scope="module")
def omni(tmp_path_factory: pytest.TempPathFactory) -> descant.Omni:
    folder = tiny.write_descant(tmp_path_factory.mktemp("omni") / "7b")
    return descant.load(folder, latency=FAST)


def fingerprint(events: list[descant.TextDelta | AudioChunk | Finished]) -> list[object]:
    return [e.samples.tobytes() if isinstance(e, AudioChunk) else e.text for e in events]


def test_an_answer_has_text_sound_and_an_end(omni: descant.Omni) -> None:
    events = list(omni.chat(ASK, max_tokens=6, talker_sampling=SHORT, seed=0))
    assert {type(event) for event in events} == {TextDelta, AudioChunk, Finished}
    assert 0 < events[-1].usage.codes <= 12
    assert events[-1].usage.samples == events[-1].usage.codes * 2 * 240


def test_a_loaded_model_is_prepared_once_for_all_that_share_it(omni: descant.Omni) -> None:
    again = descant.Omni(omni.checkpoint, FAST)
    with torch.inference_mode():
        assert all(layer.self_attn.fused and layer.mlp.fused for layer in again.models.thinker.decoder.layers)
    first, second = (one.chat(ASK, max_tokens=6, talker_sampling=SHORT, seed=5) for one in (omni, again))
    assert fingerprint(list(first)) == fingerprint(list(second))


def test_one_seed_one_answer_and_none_is_another_each_time(omni: descant.Omni) -> None:
    hot = Sampling(temperature=1.5, max_tokens=8)

    def ask(seed: int | None) -> list[object]:
        return fingerprint(list(omni.chat(ASK, sampling=hot, talker_sampling=SHORT, seed=seed)))

    assert ask(5) == ask(5)
    assert len({str(ask(None)) for _ in range(3)}) == 3


def test_max_tokens_overrides_that_of_the_sampling(omni: descant.Omni) -> None:
    end = list(omni.chat(ASK, sampling=Sampling(max_tokens=50), max_tokens=3, speech=False))[-1]
    assert end.usage.text_tokens == 3 and end.reason == "length"


def test_speech_chooses_the_system_turn(omni: descant.Omni) -> None:
    spoken = next(iter([*omni.chat(ASK, max_tokens=1, talker_sampling=Sampling(max_tokens=1))][-1:])).usage
    silent = list(omni.chat(ASK, max_tokens=1, speech=False))[-1].usage
    inputs = omni.checkpoint.inputs
    assert spoken.prompt_tokens - silent.prompt_tokens == len(
        omni.models.tokenizer.encode(inputs.speech_system or "")
    ) - len(omni.models.tokenizer.encode(inputs.default_system or ""))


def test_the_voices_differ_and_the_first_is_the_default(omni: descant.Omni) -> None:
    assert omni.voices == ("Chelsie", "Ethan")
    sounds = {
        voice: str(fingerprint(list(omni.chat(ASK, voice=voice, max_tokens=2, talker_sampling=SHORT, seed=0))))
        for voice in (None, *omni.voices)
    }
    assert sounds[None] == sounds["Chelsie"] != sounds["Ethan"]


def test_speak_says_the_text_word_for_word(omni: descant.Omni) -> None:
    events = list(omni.speak("Good \N{WHITE SMILING FACE}!", talker_sampling=SHORT, seed=0))
    assert events[-1].text == "Good \N{WHITE SMILING FACE}!" and not events[-1].usage.text_cut
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == events[-1].text
    assert any(isinstance(event, AudioChunk) for event in events)


def test_transcribe_asks_about_the_sound_and_returns_text(omni: descant.Omni) -> None:
    samples = np.zeros(3200, dtype=np.float32)
    asked = [descant.user(descant.Audio(samples, 16000), TRANSCRIBE)]
    expected = list(omni.chat(asked, speech=False, max_tokens=5))[-1].text
    assert omni.transcribe(descant.Audio(samples, 16000), max_tokens=5) == expected


def test_the_instructions_are_the_trainers(omni: descant.Omni) -> None:
    assert READ_ALOUD.format(text="x").endswith("x") and TRANSCRIBE


def test_a_trace_holds_what_was_computed(omni: descant.Omni) -> None:
    sound = descant.Audio(np.zeros(16000, dtype=np.float32), 16000)
    picture = descant.Image(np.zeros((56, 84, 3), dtype=np.uint8))
    out = omni.trace([descant.user(sound, picture)], max_text=3, max_codes=2)
    shapes = {name: tuple(tensor.shape) for name, tensor in out.items()}
    prompt = shapes["input_ids"][0]
    assert shapes == {
        "input_ids": (prompt,),
        "position_ids": (3, prompt),
        "audio_features": (25, 64),
        "vision_features": (6, 64),
        "text_logits": (3, tiny.VOCAB),
        "text_ids": (3,),
        "talker_logits": (2, tiny.CODES),
        "codes": (2,),
        "mel": (tiny.MELS, 4),
        "wav": (960,),
    }
    assert not any(tensor.is_inference() for tensor in out.values())
    again = omni.trace([descant.user(sound, picture)], max_text=3, max_codes=2)
    assert all(torch.equal(out[name], again[name]) for name in out)


def test_a_trace_without_media_has_empty_features(omni: descant.Omni) -> None:
    out = omni.trace(ASK, max_text=1, max_codes=1)
    assert out["audio_features"].shape == out["vision_features"].shape == (0, 64)


Refused = Callable[[descant.Omni], object]
REFUSALS: dict[str, tuple[Refused, str]] = {
    "voice": (lambda o: o.chat(ASK, voice="Nobody"), "unknown voice 'Nobody'; this model has Chelsie, Ethan"),
    "latency": (lambda o: o.chat(ASK, latency="fast"), "latency 'fast' is unknown; choose low, balanced or quality"),
    "window": (lambda o: o.chat(ASK, latency=replace(FAST, now=0)), "Decoding: now=0 is impossible; allowed: 1 to 64"),
    "no messages": (lambda o: o.chat([]), "no messages"),
    "seed": (lambda o: o.chat(ASK, seed=-1), "seed=-1 is impossible"),
    "top_p": (lambda o: o.chat(ASK, sampling=Sampling(top_p=0)), "text sampling: top_p=0 is impossible"),
    "temperature": (
        lambda o: o.chat(ASK, talker_sampling=Sampling(temperature=-1)),
        "speech sampling: temperature=-1 is impossible",
    ),
    "max_tokens": (lambda o: o.chat(ASK, max_tokens=0), "max_tokens=0 is impossible; allowed: 1 or more"),
    "nothing to say": (lambda o: o.speak("  "), "the text is empty"),
    "trace": (lambda o: o.trace(ASK, max_text=0, max_codes=1), "max_text=0 is impossible"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_means_nothing_is_refused_at_once(omni: descant.Omni, case: str) -> None:
    call, message = REFUSALS[case]
    with pytest.raises(OptionError) as error:
        call(omni)
    assert message in str(error.value)


def test_refused_media_leave_the_model_usable(omni: descant.Omni, tmp_path: Path) -> None:
    fake = tmp_path / "fake.png"
    fake.write_text("not a picture")
    with pytest.raises(MediaError):
        omni.chat([descant.user(descant.Image(fake))])
    assert isinstance(list(omni.chat(ASK, max_tokens=2, talker_sampling=SHORT))[-1], Finished)


def test_a_model_without_a_talker_answers_in_text_alone(omni: descant.Omni) -> None:
    mute = descant.Omni(replace(omni.checkpoint, talker=None, token2wav=None))
    assert mute.voices == () and not mute.speaks
    with pytest.raises(OptionError, match="speech=False"):
        mute.chat(ASK)
    assert [type(event) for event in mute.chat(ASK, speech=False, max_tokens=1)][-1] is Finished
    assert "codes" not in mute.trace(ASK, max_text=1, max_codes=1)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("name", "nonsense", "nonsense"),
        ("dtype", "int3", "unknown dtype 'int3'; choose one of float32, bfloat16, float16"),
        ("device", "gpu9", "device 'gpu9' cannot be used"),
        ("latency", "fast", "latency 'fast' is unknown"),
    ],
)
def test_load_refuses_what_it_does_not_know(option: str, value: str, message: str) -> None:
    with pytest.raises(OptionError) as error:
        descant.load(**{option: value})  # type: ignore[arg-type]
    assert message in str(error.value)


def test_half_precision_answers_with_finite_sound(omni: descant.Omni) -> None:
    half = descant.load(omni.checkpoint.folder, dtype="bfloat16", latency=FAST)
    assert half.models.thinker.decoder.embed_tokens.weight.dtype == torch.bfloat16
    events = list(half.chat(ASK, max_tokens=3, talker_sampling=SHORT, seed=0))
    assert all(np.isfinite(event.samples).all() for event in events if isinstance(event, AudioChunk))


def test_no_signature_grows_past_eight_options() -> None:
    for function in (descant.load, descant.Omni.chat, descant.Omni.speak, descant.Omni.transcribe, descant.Omni.trace):
        assert len([name for name in inspect.signature(function).parameters if name != "self"]) <= 8
