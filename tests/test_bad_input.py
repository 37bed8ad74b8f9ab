"""Bad input, end to end through the user's object and the command line: a clear error, and everything stays usable."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

import descant
from descant.cli import common
from descant.cli.errors import run
from descant.config import InputsConfig
from descant.errors import ConfigError, DescantError, MediaError, OptionError, SessionError, WeightsError
from descant.inputs.door import check_clip, check_pixels
from descant.inputs.image import image_grid
from descant.inputs.live_sight import LiveFrames
from descant.types import Audio, Budget, Clip, Finished, Image, Message, Part, Sampling, Text, Video
from tests import tiny
from tests.inputs import media


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_descant(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def omni(folder: Path) -> descant.Omni:
    return descant.load(folder)


def greeting(omni: descant.Omni) -> str:
    """The same short answer every time, from a model that is unharmed."""
    events = list(omni.chat([descant.user("hello")], speech=False, max_tokens=4, seed=0))
    assert isinstance(events[-1], Finished)
    return events[-1].text


@pytest.fixture(autouse=True)
def unharmed(omni: descant.Omni) -> Iterator[None]:
    """After every bad input the same process and the same model still answer."""
    before = greeting(omni)
    yield
    assert greeting(omni) == before


# ---------------------------------------------------------------- media


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Pillow.new("1", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def huge_png(width: int, height: int) -> bytes:
    """A small file whose header promises a picture of any size."""
    data = png(8, 8)
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def silent_video() -> bytes:
    return media.video_file(media.grey_frames([0, 60, 120, 180, 240, 30]), 2)


def sound_only() -> bytes:
    return media.sound_file("mp4", "aac", media.tone(1, 48000), 48000)


def nan_wav() -> bytes:
    samples = media.tone(0.5, 16000)
    samples[100] = np.nan
    return media.wav(samples, 16000)


def flac() -> bytes:
    return media.sound_file("flac", "flac", media.tone(3, 16000), 16000)


def picture() -> bytes:
    return media.image_file(media.picture(60, 60))


BAD: dict[str, tuple[str, Callable[[], bytes | None], str]] = {
    # what is wrong: (file name, its bytes or None for no file, the code of the error)
    "a missing picture": ("a.png", lambda: None, "media.missing"),
    "an empty picture": ("a.png", lambda: b"", "media.empty"),
    "a truncated picture": ("a.png", lambda: picture()[:500], "image.decode_failed"),
    "a text file named .png": ("a.png", lambda: b"hello, I am text\n" * 9, "media.unknown_format"),
    "a sound named .png": ("a.png", lambda: media.wav(media.tone(1, 16000), 16000), "media.wrong_kind"),
    "a picture of 1 x 100000": ("a.png", lambda: png(1, 100_000), "image."),
    "a picture of 100000 x 100000": ("a.png", lambda: huge_png(100_000, 100_000), "image."),
    "a missing sound": ("a.wav", lambda: None, "media.missing"),
    "an empty sound": ("a.wav", lambda: b"", "media.empty"),
    "a truncated sound": ("a.wav", lambda: media.wav(media.tone(1, 16000), 16000)[:9000], "audio.truncated"),
    "a truncated FLAC": ("a.flac", lambda: flac()[:4000], "audio."),
    "a text file named .wav": ("a.wav", lambda: b"RIFX nothing of the kind", "media.unknown_format"),
    "a 1 Hz WAV": ("a.wav", lambda: media.wav(media.tone(1, 16000), 1), "audio.bad_rate"),
    "a NaN WAV": ("a.wav", nan_wav, "audio.not_finite"),
    "301 s of sound": ("a.wav", lambda: media.wav(np.zeros(301 * 16000, np.int16), 16000), "audio.too_long"),
    "no samples": ("a.wav", lambda: media.wav(np.zeros(0, np.int16), 16000), "audio.empty"),
    "a missing video": ("a.mp4", lambda: None, "media.missing"),
    "an empty video": ("a.mp4", lambda: b"", "media.empty"),
    "a truncated video": ("a.mp4", lambda: silent_video()[: len(silent_video()) // 2], "video."),
    "a video without frames": ("a.mp4", sound_only, "video."),
    "a text file named .mp4": ("a.mp4", lambda: b"hello, I am text\n" * 9, "media.unknown_format"),
}
KINDS: dict[str, Callable[[str], Part]] = {".png": Image, ".wav": Audio, ".flac": Audio, ".mp4": Video}
OPTIONS = {".png": "--image", ".wav": "--audio", ".flac": "--audio", ".mp4": "--video"}


def place(case: str, tmp_path: Path) -> tuple[Path, str]:
    """Write the bad file; returns its path and the code that is due."""
    name, make, code = BAD[case]
    data = make()
    if data is not None:
        (tmp_path / name).write_bytes(data)
    return tmp_path / name, code


@pytest.mark.parametrize("case", BAD)
def test_bad_media_are_refused_by_the_object(omni: descant.Omni, tmp_path: Path, case: str) -> None:
    path, code = place(case, tmp_path)
    with pytest.raises(MediaError) as caught:
        list(omni.chat([Message("user", (KINDS[path.suffix](str(path)), Text("What?")))], speech=False, max_tokens=2))
    assert caught.value.code.startswith(code), caught.value.code
    assert len(str(caught.value)) > 30


@pytest.mark.parametrize("case", BAD)
def test_bad_media_are_one_line_on_the_terminal(
    omni: descant.Omni, tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = place(case, tmp_path)
    monkeypatch.setattr(common, "open_model", lambda name, **options: omni)
    assert run(["ask", "What?", OPTIONS[path.suffix], str(path), "--no-speech", "--max-tokens", "2"]) == 2
    out, err = capsys.readouterr()
    assert out.strip() == "" and err.startswith("descant: ") and err.count("\n") == 1


def test_sound_asked_of_a_silent_video_is_refused(omni: descant.Omni) -> None:
    with pytest.raises(MediaError) as caught:
        list(omni.chat([descant.user(Video(silent_video(), use_audio=True))], speech=False))
    assert caught.value.code == "video.no_sound"


def test_the_command_line_hears_a_video_only_where_it_has_sound(
    omni: descant.Omni, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "open_model", lambda name, **options: omni)
    loud = media.video_file(media.grey_frames([0, 60, 120, 180]), 2, sound=media.tone(2, 48000))
    for name, data in (("silent.mp4", silent_video()), ("loud.mp4", loud)):
        (tmp_path / name).write_bytes(data)
        assert run(["ask", "What?", "--video", str(tmp_path / name), "--no-speech", "--max-tokens", "2"]) == 0
    tokens = [
        len(omni.builder.build([descant.user(Video(str(tmp_path / "loud.mp4"), use_audio=heard))], speech=False))
        for heard in (False, None)
    ]
    assert tokens[1] > tokens[0] + 40  # 2 s of sound


# ---------------------------------------------------------------- options

WRONG_OPTIONS: dict[str, dict[str, object]] = {
    "an unknown voice": {"voice": "Bob"},
    "an unknown latency": {"latency": "quick"},
    "no tokens": {"max_tokens": 0},
    "a negative seed": {"seed": -1},
    "a negative temperature": {"sampling": Sampling(temperature=-1.0)},
    "a temperature that is no number": {"sampling": Sampling(temperature=float("nan"))},
    "top_p of nothing": {"sampling": Sampling(temperature=1.0, top_p=0.0)},
    "top_p over 1": {"sampling": Sampling(temperature=1.0, top_p=1.5)},
    "a negative top_k": {"sampling": Sampling(temperature=1.0, top_k=-3)},
    "a penalty of 0": {"sampling": Sampling(repetition_penalty=0.0)},
    "a bad sampling of the Talker": {"talker_sampling": Sampling(temperature=-0.1)},
}


@pytest.mark.parametrize("case", WRONG_OPTIONS)
def test_impossible_options_are_refused(omni: descant.Omni, case: str) -> None:
    with pytest.raises(OptionError) as caught:
        omni.chat([descant.user("hello")], **WRONG_OPTIONS[case])  # type: ignore[arg-type]
    assert len(str(caught.value)) > 20


def test_an_empty_conversation_is_refused(omni: descant.Omni) -> None:
    with pytest.raises(OptionError):
        omni.chat([])


def test_nothing_cannot_be_said(omni: descant.Omni) -> None:
    with pytest.raises(OptionError, match="empty"):
        omni.speak(" ")


def test_an_unknown_dtype_and_an_unknown_device(folder: Path) -> None:
    with pytest.raises(OptionError, match="dtype"):
        descant.load(folder, dtype="float8")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="device"):
        descant.load(folder, device="toaster")


@pytest.mark.parametrize("name", ["nope", "./nope", "Nobody/no-such-model", ""])
def test_an_unknown_model_is_refused_with_the_next_thing_to_type(name: str) -> None:
    with pytest.raises(DescantError) as caught:
        descant.load(name)
    assert len(str(caught.value)) > 40


# ---------------------------------------------------------------- weights and config


class Bomb:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch exploded",)


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5000])


def cut_the_header(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def other_shapes(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["thinker_config"]["text_config"]["intermediate_size"] += 8
    (folder / "config.json").write_text(json.dumps(config))


def missing_key(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["thinker_config"]["text_config"]["num_hidden_layers"]
    (folder / "config.json").write_text(json.dumps(config))


def unknown_key(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["thinker_config"]["text_config"]["num_hidden_layer"] = 3
    (folder / "config.json").write_text(json.dumps(config))


def pickled_voice(folder: Path) -> None:
    (folder / "voices.safetensors").unlink(missing_ok=True)
    (folder / "spk_dict.pt").write_bytes(pickle.dumps(Bomb()))


def zipped_voice(folder: Path) -> None:
    import torch

    (folder / "voices.safetensors").unlink(missing_ok=True)
    torch.save({"Chelsie": Bomb()}, folder / "spk_dict.pt")


def pickled_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))


SPOILT: dict[Callable[[Path], None], type[DescantError]] = {
    truncate: WeightsError,
    cut_the_header: WeightsError,
    no_weights: WeightsError,
    other_shapes: WeightsError,
    missing_key: ConfigError,
    unknown_key: ConfigError,
    pickled_voice: WeightsError,
    zipped_voice: WeightsError,
    pickled_weights: WeightsError,
}


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda f: f.__name__)
def test_a_spoilt_folder_is_refused_and_runs_no_code(
    folder: Path,
    tmp_path: Path,
    spoil: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoilt = tmp_path / "model"
    shutil.copytree(folder, spoilt)
    monkeypatch.chdir(tmp_path)
    spoil(spoilt)
    with pytest.raises(SPOILT[spoil]) as caught:
        descant.load(spoilt)
    assert len(str(caught.value)) > 30
    assert run(["ask", "hello", "--model", str(spoilt)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("descant: ") and err.count("\n") == 1
    assert not list(tmp_path.rglob("exploded")) and not (tmp_path / "answer.wav").exists()


def test_the_bomb_is_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Bomb()))  # noqa: S301 - shows that the file above would do harm if it were unpickled
    assert (tmp_path / "exploded").exists()


# ---------------------------------------------------------------- what libraries raise is ours by then

HOMELESS = ("~nosuchuser/m", "a\0b", "x" * 5000, "none/such")


@pytest.mark.parametrize("name", HOMELESS)
def test_names_that_the_system_itself_refuses(name: str) -> None:
    with pytest.raises(DescantError):
        descant.load(name)


@pytest.mark.parametrize("at", [1e308, 10**400, -1.0, float("nan"), 2e6])
def test_times_that_are_none(at: float) -> None:
    frames = LiveFrames(InputsConfig())
    frames.push(np.zeros((56, 56, 3), np.uint8), 0.0)
    with pytest.raises(MediaError, match="pushed at="):
        frames.push(np.zeros((56, 56, 3), np.uint8), at)


@pytest.mark.parametrize("fps", [5e-324, 1e308, 0.0, -1.0, float("nan"), 1e-3])
def test_rates_that_are_none(fps: float) -> None:
    clip = Clip(np.zeros((4, 56, 56, 3), np.uint8), fps)
    with pytest.raises(MediaError, match="frames a second|lasts over"):
        check_clip(clip, 16000, Budget(), with_sound=False)


def test_a_picture_that_may_not_be_written_to_is_read_without_a_warning() -> None:
    pixels = np.zeros((112, 112, 3), np.uint8)
    pixels.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image_grid(check_pixels(pixels, Budget()), InputsConfig())


def test_memory_that_runs_out_is_said(omni: descant.Omni, monkeypatch: pytest.MonkeyPatch) -> None:
    def empty(*_: object) -> object:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("descant.inputs.prompt.image_grid", empty)
        with pytest.raises(SessionError, match="not enough memory"):
            omni.chat([descant.user(Image(np.zeros((56, 56, 3), np.uint8)))], speech=False)
    assert isinstance(list(omni.chat("hi", speech=False, max_tokens=2))[-1], Finished)
