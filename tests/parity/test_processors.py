"""Processors equal the reference's: mel, pixels, ids; each comparison is shown to see a broken formula."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from tokenizers import Tokenizer as Backend
from tokenizers import trainers
from transformers import AutoTokenizer, Qwen2Tokenizer, WhisperFeatureExtractor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as reference_smart_resize

from descant.config import InputsConfig, audio_tokens
from descant.errors import MediaError
from descant.export.tokenizer import byte_tokenizer, write_tokenizer
from descant.inputs import audio, image, image_file, video
from descant.inputs import tokenizer as names
from descant.inputs.audio import log_mel
from descant.inputs.audio_file import Samples
from descant.inputs.image import image_grid
from descant.inputs.image_file import UTILITY_MAX_PIXELS, UTILITY_MIN_PIXELS, smart_resize
from descant.inputs.tokenizer import SPECIAL_TOKENS, Tokenizer
from descant.inputs.video import video_grid
from descant.inputs.video_file import sample_frames
from tests.inputs import media

Record = Callable[[str, str, float], None]
INPUTS = InputsConfig()
TOLERANCE = 1e-4  # promised; mel and pixels are in fact equal to rounding (1e-6)
BROKEN = 1e-2  # what a formula broken on purpose must exceed

# ---------------------------------------------------------------- log-mel


@pytest.fixture(scope="module")
def extractor() -> Any:
    return WhisperFeatureExtractor(feature_size=128, chunk_length=300, n_fft=400, return_attention_mask=True)


def mel_difference(samples: Samples, extractor: Any) -> float:
    """Largest difference over the valid frames; the reference pads every clip to 300 s."""
    options = {"padding": "max_length", "return_attention_mask": True, "return_tensors": "pt"}
    expected = extractor(samples, sampling_rate=16000, **options)
    frames = int(expected["attention_mask"].sum())
    ours = log_mel(samples, INPUTS)
    assert ours.shape == (128, frames)
    return float((ours - expected["input_features"][0, :, :frames]).abs().max())


def click_at_end(count: int) -> Samples:
    """A quiet clip whose loudest sound is in its last 3 ms: frames past the last valid one set the floor."""
    samples = 1e-3 * media.noise(count)
    samples[-48:] *= 1e5
    return samples


@pytest.mark.parametrize("seconds", [0.03, 2.0, 2.01, 31.0])
@pytest.mark.parametrize("kind", ["noise", "tone", "silence", "click at the end"])
def test_log_mel(seconds: float, kind: str, extractor: Any, record: Record) -> None:
    count = round(16000 * seconds)
    makers: dict[str, Callable[[], Samples]] = {
        "noise": lambda: media.noise(count),
        "tone": lambda: media.tone(seconds, 16000),
        "silence": lambda: np.zeros(count, np.float32),
        "click at the end": lambda: click_at_end(count),
    }
    difference = mel_difference(makers[kind](), extractor)
    record("log-mel", f"{seconds} s", difference)
    assert difference < TOLERANCE


@pytest.mark.parametrize("count", [4_800_000, 4_799_960, 4_799_841])
def test_log_mel_at_the_end_of_the_300_s(count: int, extractor: Any, record: Record) -> None:
    difference = mel_difference(media.noise(count), extractor)
    record("log-mel", "300 s", difference)
    assert difference < TOLERANCE


@settings(max_examples=25, deadline=None, derandomize=True)
@given(count=st.integers(321, 6000), seed=st.integers(0, 99))
def test_log_mel_of_any_length(count: int, seed: int) -> None:
    few = WhisperFeatureExtractor(feature_size=128, chunk_length=1, n_fft=400, return_attention_mask=True)
    assert mel_difference(media.noise(count, seed=seed), few) < TOLERANCE


def _break(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, change: Callable[[Any], Any]) -> None:
    real = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *a, **k: change(real(*a, **k)))


@pytest.mark.parametrize(
    ("name", "change"),
    [("_hann", lambda w: torch.hann_window(len(w), periodic=False)), ("slaney_filters", lambda f: f.roll(1, 1))],
)
def test_a_broken_mel_is_seen(name: str, change: Any, extractor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = media.tone(1.0, 16000) + media.noise(16000)
    _break(monkeypatch, audio, name, change)
    assert mel_difference(samples, extractor) > BROKEN


@given(frames=st.integers(3, 30000))
@settings(max_examples=50, derandomize=True)
def test_audio_tokens_equal_the_processor(frames: int) -> None:
    from transformers.models.qwen2_5_omni.processing_qwen2_5_omni import _get_feat_extract_output_lengths

    assert audio_tokens(frames) == _get_feat_extract_output_lengths(frames)


# ---------------------------------------------------------------- pictures


def picture_difference(pixels: Any, low: int = 3136, high: int = 12845056) -> float:
    """Ours against the official path: the utilities' resize by Pillow, then the processor."""
    inputs = InputsConfig(min_pixels=low, max_pixels=high)
    ours = image_grid(pixels, inputs)
    height, width = smart_resize(*pixels.shape[:2], 28, UTILITY_MIN_PIXELS, UTILITY_MAX_PIXELS, at_least=28)
    processor = Qwen2VLImageProcessorPil(min_pixels=low, max_pixels=high)
    expected = processor(Pillow.fromarray(pixels).resize((width, height)), return_tensors="pt")
    assert expected["image_grid_thw"].tolist() == [list(ours.grid)]
    return float((ours.patches - expected["pixel_values"]).abs().max())


SIZES = [(112, 112), (100, 333), (37, 41), (10, 1500), (1, 150), (480, 640), (291, 27)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pictures(size: tuple[int, int], record: Record) -> None:
    difference = picture_difference(media.picture(*size))
    record("pixels", "image of odd size", difference)
    assert difference < TOLERANCE


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pictures_resized_twice(size: tuple[int, int], record: Record) -> None:
    """Bounds tighter than the utilities': the second resize is not the identity."""
    difference = picture_difference(media.picture(*size), 12544, 12544)
    record("pixels", "image resized twice", difference)
    assert difference < TOLERANCE


def test_broken_pixels_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = media.picture(100, 333)
    with monkeypatch.context() as patch:  # blocks in reading order instead of merge order
        _break(patch, image, "patchify", lambda g: type(g)(g.patches.roll(1, 0), g.grid))
        assert picture_difference(pixels) > BROKEN
    with monkeypatch.context() as patch:
        patch.setattr(image, "normalise_pixels", lambda frames, inputs: frames.float() / 255)
        assert picture_difference(pixels) > BROKEN
    with monkeypatch.context() as patch:
        patch.setattr(
            image_file, "resize", lambda p, s: np.array(Pillow.fromarray(p).resize(s[::-1], Pillow.Resampling.BOX))
        )
        assert picture_difference(pixels) > BROKEN


sides = st.integers(1, 3000)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(height=sides, width=sides, low=st.sampled_from([3136, 12544, 100352]), room=st.sampled_from([1, 2, 64, 4096]))
def test_smart_resize(height: int, width: int, low: int, room: int) -> None:
    try:
        expected = reference_smart_resize(height, width, 28, low, low * room)
    except ValueError:
        with pytest.raises(MediaError) as caught:
            smart_resize(height, width, 28, low, low * room)
        assert caught.value.code == "image.aspect"
        return
    assert smart_resize(height, width, 28, low, low * room) == expected


# ---------------------------------------------------------------- video

# The reference's video processor needs torchvision, so it is rebuilt here from the picture processor: frame by frame,
# then two frames a grid.


def reference_video(frames: Any, size: tuple[int, int]) -> torch.Tensor:
    processor = Qwen2VLImageProcessorPil(min_pixels=1, max_pixels=10**9)
    grids = []
    for first, second in zip(frames[::2], frames[1::2]):
        halves = []
        for frame in (first, second):
            resized = np.array(Pillow.fromarray(frame).resize(size[::-1], Pillow.Resampling.BICUBIC))
            halves.append(
                processor(Pillow.fromarray(resized), return_tensors="pt")["pixel_values"].view(-1, 3, 2, 14, 14)
            )
        grids.append(torch.stack([halves[0][:, :, 0], halves[1][:, :, 0]], 2).flatten(1))
    return torch.cat(grids)


VIDEO_SIZES = [(280, 392), (100, 150), (500, 700)]


@pytest.mark.parametrize("size", VIDEO_SIZES, ids=str)
def test_video_frames(size: tuple[int, int], record: Record) -> None:
    frames = np.stack([media.picture(*size, seed=seed) for seed in range(4)])
    ours = video_grid(frames, INPUTS)
    target = (ours.grid[1] * 14, ours.grid[2] * 14)
    assert target == reference_smart_resize(*size, 28, 100352, 602112)
    difference = float((ours.patches - reference_video(frames, target)).abs().max())
    record("pixels", "video frames", difference)
    assert difference < TOLERANCE


@pytest.mark.parametrize("size", VIDEO_SIZES[1:], ids=str)
def test_video_frames_against_the_uint8_kernel(size: tuple[int, int], record: Record) -> None:
    """The resampler that torchvision calls for uint8 frames keeps fewer bits between its two passes than Pillow's."""
    frame = media.picture(*size)
    ours = video.fit_frame(frame, 4, INPUTS)
    channels = torch.from_numpy(frame).permute(2, 0, 1)[None]
    kernel = torch.nn.functional.interpolate(channels, ours.shape[:2], mode="bicubic", antialias=True)
    levels = float((torch.from_numpy(ours).int() - kernel[0].permute(1, 2, 0).int()).abs().max())
    record("pixels", "video frames, the resampler's rounding", levels / 255)
    assert levels <= 2


def test_broken_video_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.stack([media.picture(280, 392, seed=seed) for seed in range(4)])
    _break(monkeypatch, video, "normalise_pixels", lambda f: f.flip(0))
    assert float((video_grid(frames, INPUTS).patches - reference_video(frames, (280, 392))).abs().max()) > BROKEN


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    total=st.integers(2, 900),
    rate=st.sampled_from([2.0, 5.0, 24.0, 25.0, 30.0, 30000 / 1001, 60.0]),
    jitter=st.booleans(),
)
def test_sampled_frames_equal_the_utilities(total: int, rate: float, jitter: bool) -> None:
    """The authors' rule: clamp to [4, T], floor to even, rounded linspace. Whole milliseconds change nothing."""
    wanted = min(max(total / rate * 2.0, 4), total // 2 * 2, total)
    expected = torch.linspace(0, total - 1, int(wanted // 2 * 2)).round().long().tolist()
    times = np.arange(total) / rate
    if jitter:
        times = np.round(times, 3)
    if len(expected) > INPUTS.max_frames:
        with pytest.raises(MediaError, match="at most 768"):
            sample_frames(times, rate, INPUTS)
    else:
        assert sample_frames(times, rate, INPUTS) == expected


# ---------------------------------------------------------------- tokenizer

CORPUS = [
    "the quick brown fox\n\njumps over 12 lazy dogs, don't they?",
    "naïve café 你好 世界 🙂🙃",
    "  indented\n\n\n  code();\r\n",
]


@pytest.fixture(scope="module")
def trained() -> Backend:
    """A small BPE with real merges (of newlines, of bytes inside characters) and the 22 special tokens."""
    backend = names.bpe_backend({}, [], ignore_merges=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=names.pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(CORPUS * 4, trainer)
    backend.add_special_tokens([names.AddedToken(name, special=True, normalized=False) for name in SPECIAL_TOKENS])
    return backend


texts = st.one_of(
    st.text(max_size=40), st.lists(st.sampled_from(CORPUS + ["\n", " ", "e\u0301", "٣", "12345"])).map("".join)
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(text=texts)
def test_encode_and_decode_equal_the_reference(text: str, trained: Backend) -> None:
    reference, ours = _qwen(trained), Tokenizer(trained)
    ids = reference.encode(text, add_special_tokens=False)
    assert ours.encode(text) == ids
    assert ours.decode(ids) == reference.decode(ids, clean_up_tokenization_spaces=False)


def _qwen(backend: Backend) -> Any:
    if "qwen" not in _CACHE:
        state = names.json.loads(backend.to_str())["model"]
        _CACHE["qwen"] = Qwen2Tokenizer(vocab=state["vocab"], merges=[tuple(pair) for pair in state["merges"]])
    return _CACHE["qwen"]


_CACHE: dict[str, Any] = {}


def test_nano_tokenizer_loads_unchanged_in_the_reference(tmp_path: Path) -> None:
    backend = byte_tokenizer(["system", "user", "assistant"])
    write_tokenizer(backend, tmp_path)
    reference = AutoTokenizer.from_pretrained(tmp_path)
    text = "<|im_start|>user\nthe house is used, isn't it? 12<|im_end|>\n"
    assert reference.encode(text) == backend.encode(text).ids
    assert reference.image_token == names.IMAGE and reference.eos_token == names.IM_END


def test_special_ids_follow_the_official_order() -> None:
    """151643 is <|endoftext|>; the others follow in this order (added_tokens.json of the official checkpoints)."""
    offsets = {names.IM_START: 1, names.IM_END: 2, names.AUDIO: 3, names.IMAGE: 12, names.VIDEO: 13, names.FILE_SEP: 21}
    assert len(SPECIAL_TOKENS) == 22
    assert all(SPECIAL_TOKENS[place] == name for name, place in offsets.items())
