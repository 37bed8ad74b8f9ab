"""Whole folders: loaded strictly and exactly, saved in the official form, and refused where anything is off."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from descant.errors import DescantError, OptionError, WeightsError
from descant.export.checkpoint import save_checkpoint
from descant.weights import checkpoint as module
from descant.weights.checkpoint import load_checkpoint
from descant.weights.names import to_official
from descant.weights.shards import INDEX, SINGLE, read_headers
from tests import tiny
from tests.weights.conftest import Copy

INV_FREQ = "token2wav.code2wav_dit_model.rotary_embed.inv_freq"


def stored(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder, by official name, read without the code under test."""
    tensors: dict[str, Tensor] = {}
    for path in folder.glob("model*.safetensors"):
        tensors |= load_file(path)
    return tensors


def loaded(folder: Path, **options: Any) -> dict[str, Tensor]:
    """Every tensor of the modules, by official name."""
    return {str(to_official(n)): t.detach() for n, t in load_checkpoint(folder, **options).parts.tensors().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return set(a) == set(b) and all(torch.equal(a[n], b[n]) for n in a)


# ---------------------------------------------------------------- loading


def test_a_folder_of_transformers(seven: Path) -> None:
    files, found = stored(seven), loaded(seven)
    assert (seven / INDEX).is_file() and len(list(seven.glob("model-*.safetensors"))) > 2
    assert INV_FREQ not in files  # transformers leaves it out; it follows from the config
    rates = found.pop(INV_FREQ)
    assert torch.allclose(rates, 10000.0 ** -(torch.arange(0, 16, 2) / 16))
    assert equal(files, found)
    assert all(tensor.dtype == torch.float32 for tensor in found.values())


def test_everything_that_comes_with_it(seven: Path) -> None:
    checkpoint = load_checkpoint(seven)
    assert checkpoint.config == tiny.descant_config("7b")
    assert list(checkpoint.voices) == ["Chelsie", "Ethan"]
    assert checkpoint.inputs.max_pixels == tiny.MAX_PIXELS
    assert checkpoint.generation.stop_ids == (tiny.ID["<|im_end|>"], tiny.ID["<|endoftext|>"])
    assert checkpoint.folder == seven
    assert not any(part.training for part in checkpoint.parts.named().values())


@pytest.mark.parametrize("name", ["seven", "three_tied"])
def test_same_answers_as_transformers(name: str, request: pytest.FixtureRequest) -> None:
    from transformers import Qwen2_5OmniForConditionalGeneration

    folder = request.getfixturevalue(name)
    reference = Qwen2_5OmniForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    checkpoint = load_checkpoint(folder)
    ids = torch.arange(40, 60)[None]
    positions = torch.arange(20).expand(3, 1, 20)
    with torch.no_grad():
        theirs = reference.thinker(input_ids=ids).logits
        hidden = checkpoint.thinker(checkpoint.thinker.embed_tokens(ids), positions)
        ours = checkpoint.thinker.logits(hidden)
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-5
    assert (checkpoint.thinker.lm_head is None) == (name == "three_tied")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtype_is_the_callers_but_the_sound_stays_float32(dtype: torch.dtype, seven: Path) -> None:
    files = stored(seven)
    for name, tensor in loaded(seven, dtype=dtype).items():
        expected = torch.float32 if name.startswith("token2wav.") else dtype
        assert tensor.dtype == expected, name
        if name != INV_FREQ:
            assert torch.equal(tensor, files[name].to(expected))


def test_without_a_dtype_a_cpu_gets_float32(tmp_path: Path) -> None:
    tiny.write_descant(tmp_path, dtype=torch.bfloat16)
    assert all(t.dtype == torch.float32 for t in loaded(tmp_path).values())
    entries = {"thinker.decoder.embed_tokens.weight": next(iter(read_headers(tmp_path).values()))}
    assert module.native_dtype(entries) == torch.bfloat16


@pytest.mark.parametrize(
    "device, words", [("nonsense", "device 'nonsense' cannot be used"), ("cuda", "device 'cuda' cannot be used")]
)
def test_devices_that_are_not_there(device: str, words: str, ours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: False)
    with pytest.raises(OptionError, match=words):
        load_checkpoint(ours, device=device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_device_is_the_callers(ours: Path) -> None:
    found = loaded(ours, device="cuda")
    assert {t.device.type for t in found.values()} == {"cuda"}
    assert equal({n: t.cpu() for n, t in found.items()}, loaded(ours))


def test_small_files_for_the_embedded_model(ours: Path, tmp_path: Path) -> None:
    half = tiny.write_descant(tmp_path, dtype=torch.float16)
    full, small = stored(ours), stored(half)
    assert (half / SINGLE).stat().st_size < 0.6 * (ours / SINGLE).stat().st_size
    assert equal(loaded(half), {n: t.float() for n, t in small.items()})
    assert all(t.dtype == (torch.float32 if n == INV_FREQ else torch.float16) for n, t in small.items())
    assert set(full) == set(small)


def test_one_tensor_at_a_time_and_one_shard_open(seven: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards are opened one after the other, and no module holds a meta tensor when its turn is over."""
    real, now, most = module.safe_open, 0, 0

    class Counted:
        def __init__(self, *args: Any, **kwargs: Any):
            self.inner = real(*args, **kwargs)

        def __enter__(self) -> Any:
            nonlocal now, most
            now += 1
            most = max(most, now)
            return self.inner.__enter__()

        def __exit__(self, *error: Any) -> None:
            nonlocal now
            now -= 1
            self.inner.__exit__(*error)

    monkeypatch.setattr(module, "safe_open", Counted)
    load_checkpoint(seven)
    assert (most, now) == (1, 0)


def test_weights_do_not_hang_on_the_file(ours: Path, copy: Copy) -> None:
    folder = copy(ours)
    before = loaded(folder)
    path = folder / SINGLE
    with path.open("r+b") as file:  # the file changes under the loaded model
        file.seek(path.stat().st_size // 2)
        file.write(b"\x00" * 4096)
    assert equal(before, loaded(ours))


def test_progress_only_when_asked_and_on_stderr(ours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_checkpoint(ours)
    assert capsys.readouterr() == ("", "")
    load_checkpoint(ours, progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "loading weights" in err


def test_a_model_that_does_not_speak_skips_its_sound(seven: Path, copy: Copy) -> None:
    folder = copy(seven)
    edit(folder / "config.json", enable_audio_output=False)
    checkpoint = load_checkpoint(folder)
    assert checkpoint.talker is None and checkpoint.token2wav is None


# ---------------------------------------------------------------- saving


@pytest.mark.parametrize("size", [10**9, 300_000])
def test_save_and_load(size: int, seven: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(seven)
    save_checkpoint(checkpoint, tmp_path / "out", shard_bytes=size)
    again = load_checkpoint(tmp_path / "out")
    assert equal(loaded(seven), loaded(tmp_path / "out"))
    assert (again.config, again.inputs, again.generation) == (
        checkpoint.config,
        checkpoint.inputs,
        checkpoint.generation,
    )
    assert list(again.voices) == list(checkpoint.voices)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (seven / "tokenizer.json").read_bytes()
    shards = list((tmp_path / "out").glob("model*.safetensors"))
    assert (len(shards) == 1) == (size == 10**9)
    assert all(path.stat().st_size < size + 50_000 for path in shards)


def test_transformers_loads_what_we_save(seven: Path, tmp_path: Path) -> None:
    from transformers import Qwen2_5OmniForConditionalGeneration

    save_checkpoint(load_checkpoint(seven), tmp_path, shard_bytes=300_000)
    torch.save(tiny.speakers(), tmp_path / "spk_dict.pt")  # transformers wants the pickle
    before, after = (Qwen2_5OmniForConditionalGeneration.from_pretrained(f).state_dict() for f in (seven, tmp_path))
    assert equal(before, after)  # a tensor that it had not found would be random


def test_saving_again_leaves_no_old_shards(ours: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(ours)
    save_checkpoint(checkpoint, tmp_path, shard_bytes=300_000)
    save_checkpoint(checkpoint, tmp_path)
    assert sorted(p.name for p in tmp_path.glob("model*")) == [SINGLE]
    save_checkpoint(load_checkpoint(tmp_path), tmp_path, shard_bytes=300_000)  # onto itself
    assert not (tmp_path / SINGLE).exists()
    assert equal(loaded(tmp_path), loaded(ours))


# ---------------------------------------------------------------- what is refused


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the tensors of a one-file folder."""
    tensors = load_file(folder / SINGLE)
    change(tensors)
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / SINGLE, metadata={"format": "pt"})


HEAD = "thinker.lm_head.weight"


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda t: t.pop(HEAD), f"1 missing: {HEAD}"),
        (lambda t: [t.pop(n) for n in list(t) if n.startswith("talker.")], r"missing: talker\..*; \.\.\."),
        (lambda t: t.update({"thinker.extra.weight": torch.ones(1)}), r"1 unexpected: thinker\.extra\.weight"),
        (lambda t: t.update({"lm_head.weight": torch.ones(1)}), "1 unexpected: lm_head.weight"),
        (lambda t: t.update({HEAD: t[HEAD][:-1]}), r"is \[319, 64\], the config says \[320, 64\]"),
        (lambda t: t.update({HEAD: t[HEAD].T}), r"is \[64, 320\]"),
        (lambda t: t.update({HEAD: t[HEAD].to(torch.int8)}), "stored as I8"),
    ],
    ids=["missing", "many missing", "unexpected", "foreign", "shape", "transposed", "integers"],
)
def test_tensors_that_do_not_fit(
    change: Callable[[dict[str, Tensor]], object], words: str, ours: Path, copy: Copy
) -> None:
    folder = copy(ours)
    rewrite(folder, change)
    with pytest.raises(WeightsError, match=words):
        load_checkpoint(folder)


def test_a_tied_head_that_is_stored_all_the_same(three_tied: Path, copy: Copy) -> None:
    folder = copy(three_tied)
    config = json.loads((folder / "config.json").read_text())
    config["thinker_config"]["tie_word_embeddings"] = False
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=f"1 missing: {HEAD}"):
        load_checkpoint(folder)


def shard(folder: Path) -> Path:
    return sorted(folder.glob("model-*.safetensors"))[1]


def lose(folder: Path) -> None:
    shard(folder).unlink()


def cut(folder: Path) -> None:
    data = shard(folder).read_bytes()
    shard(folder).write_bytes(data[: len(data) // 2])


def empty(folder: Path) -> None:
    shard(folder).write_bytes(b"")


def lie(folder: Path) -> None:
    path = shard(folder)
    path.write_bytes((2**62).to_bytes(8, "little") + path.read_bytes()[8:])


def swap(folder: Path) -> None:
    first, second = sorted(folder.glob("model-*.safetensors"))[:2]
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)


def escape(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text())
    name = next(iter(index["weight_map"]))
    index["weight_map"][name] = "../../etc/model.safetensors"
    (folder / INDEX).write_text(json.dumps(index))


def absolute(folder: Path) -> None:
    edit(folder / INDEX, weight_map={HEAD: str(shard(folder))})


def other_type(folder: Path) -> None:
    edit(folder / INDEX, weight_map={HEAD: "pytorch_model.bin"})


def no_map(folder: Path) -> None:
    edit(folder / INDEX, weight_map={})


def promise(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["thinker.ghost.weight"] = shard(folder).name
    (folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lose, "lacks 1 of"),
        (cut, "truncated"),
        (empty, "truncated"),
        (lie, "truncated or no safetensors"),
        (swap, "different checkpoints"),
        (escape, "damaged or hostile"),
        (absolute, "damaged or hostile"),
        (other_type, "damaged or hostile"),
        (no_map, "no weight_map"),
        (promise, "no shard holds: thinker.ghost.weight"),
    ],
)
def test_damaged_shards(spoil: Callable[[Path], None], words: str, seven: Path, copy: Copy) -> None:
    folder = copy(seven)
    spoil(folder)
    with pytest.raises(WeightsError, match=words):
        load_checkpoint(folder)


class Bomb:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


def test_pickles_are_never_opened(ours: Path, copy: Copy, tmp_path: Path) -> None:
    folder, mark = copy(ours), tmp_path / "ran"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
    load_checkpoint(folder)  # beside safetensors it is not even looked at
    (folder / SINGLE).unlink()
    with pytest.raises(WeightsError, match="only pickles .pytorch_model.bin.*never opened"):
        load_checkpoint(folder)
    assert not mark.exists()
    pickle.loads((folder / "pytorch_model.bin").read_bytes())  # noqa: S301 - our own; it shows that the bomb is live
    assert mark.exists()


def test_code_in_the_folder_is_not_run(ours: Path, copy: Copy, tmp_path: Path) -> None:
    folder, mark = copy(ours), tmp_path / "ran"
    code = f"import pathlib; pathlib.Path({str(mark)!r}).touch()"
    for name in ("modeling_qwen2_5_omni.py", "configuration.py", "__init__.py", "conftest.py", "setup.py"):
        (folder / name).write_text(code)
    load_checkpoint(folder)
    assert not mark.exists()
    edit(folder / "config.json", auto_map={"AutoModel": "modeling_qwen2_5_omni.Model"})
    load_checkpoint(folder)  # with a warning
    assert not mark.exists()


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda f: (f / SINGLE).unlink(), "no model.safetensors"),
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "preprocessor_config.json").unlink(), "there is no file .*preprocessor_config.json"),
        (lambda f: edit(f / "preprocessor_config.json", feature_size=80), "feature_size is 80"),
        (lambda f: edit(f / "preprocessor_config.json", merge_size=4), "merge_size is 4"),
        (lambda f: torch.save({"X": {}}, f / "spk_dict.pt"), "spk_dict.pt"),
        (lambda f: torch.save({"X": {**tiny.speakers()["Ethan"], "bos_token": 999}}, f / "spk_dict.pt"), "999"),
    ],
)
def test_folders_that_are_not_whole(spoil: Callable[[Path], object], words: str, ours: Path, copy: Copy) -> None:
    folder = copy(ours)
    spoil(folder)
    with pytest.raises(DescantError, match=words):
        load_checkpoint(folder)
