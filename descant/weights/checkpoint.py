"""A model folder <-> modules: strict, shard by shard, without a second copy of the weights in memory.

Nothing of a folder is trusted: files are JSON, safetensors and one pickle that is read weights-only (see voices.py).
Headers of all shards are compared with the config before the first byte of a weight is read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from descant.config import InputsConfig, OmniConfig
from descant.errors import ConfigError, OptionError, WeightsError, shortened
from descant.model.codec import Token2Wav
from descant.model.talker import Talker
from descant.model.thinker import Thinker
from descant.nn.rope import inverse_frequencies
from descant.types import Voice
from descant.weights import shards
from descant.weights.configfile import read_config
from descant.weights.fetch import resolve
from descant.weights.generation import GenerationDefaults, read_generation
from descant.weights.inputsfile import read_inputs
from descant.weights.names import OPTIONAL, to_official, to_ours
from descant.weights.parts import Parts, build_on_meta
from descant.weights.shards import Stored
from descant.weights.strict import warn_once
from descant.weights.voices import check_voices, read_voices

HEAD = "thinker.lm_head.weight"
Placement = Callable[[OmniConfig, Mapping[str, int]], Collection[str]]  # config, bytes of each part -> on the host
STORED_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model: its shapes, its habits and its weights. talker and token2wav are None where it cannot speak."""

    config: OmniConfig
    inputs: InputsConfig
    generation: GenerationDefaults
    thinker: Thinker
    talker: Talker | None
    token2wav: Token2Wav | None
    voices: Mapping[str, Voice]
    folder: Path

    @property
    def parts(self) -> Parts:
        return Parts(self.thinker, self.talker, self.token2wav)


def load_checkpoint(
    name: str | Path,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    progress: bool = False,
    check: Callable[[Path, OmniConfig], object] | None = None,
    place: Placement | None = None,
) -> Checkpoint:
    """Load an embedded model, a folder or a hub repository; the modules come in eval mode.

    dtype: of the Thinker and the Talker; None: float32 on a CPU, elsewhere what the files hold. Token2Wav is always
    float32, as it was trained. device None: the CPU. ``progress`` draws a bar on stderr. check: called with the folder
    and its config before anything is built. place: says which parts stay in the host's memory.
    Raises OptionError (unknown name), ConfigError, WeightsError.
    """
    folder = resolve(name)
    target = as_device(device)
    config = read_config(folder)
    inputs = read_inputs(folder)
    check_inputs(config, inputs)
    generation = read_generation(folder, config)
    voices = read_voices(folder)
    check_voices(voices, config)
    if check is not None:
        check(folder, config)
    headers = shards.read_headers(folder)
    config = as_stored(config, headers)
    parts = build_on_meta(config)
    stored = compare(parts, headers)
    if dtype is None:
        dtype = torch.float32 if target.type == "cpu" else native_dtype(stored)
    on_host = () if place is None else place(config, part_bytes(parts, dtype))
    fill(parts, stored, dtype, lambda name: torch.device("cpu") if part_name(name) in on_host else target, progress)
    fill_computed(config, parts, target)
    for part in parts.named().values():
        part.eval()
    return Checkpoint(config, inputs, generation, parts.thinker, parts.talker, parts.token2wav, voices, folder)


def as_device(device: str | torch.device | None) -> torch.device:
    """The device by name; None: the CPU. OptionError for one that this machine, or this torch, does not have."""
    try:
        return torch.empty(0, device=device or "cpu").device
    except (RuntimeError, AssertionError) as error:  # AssertionError: "not compiled with CUDA"
        raise OptionError(f"device {shortened(device)} cannot be used ({error}); try 'cpu'") from None


def check_inputs(config: OmniConfig, inputs: InputsConfig) -> None:
    """The media tensors that preprocessor_config.json describes are the ones that the encoders read."""
    vision = config.thinker.vision
    audio = config.thinker.audio
    for name, given, expected in (
        ("patch_size", inputs.patch_size, vision.patch_size),
        ("temporal_patch_size", inputs.temporal_patch_size, vision.temporal_patch_size),
        ("merge_size", inputs.merge_size, vision.spatial_merge_size),
        ("feature_size", inputs.feature_size, audio.num_mel_bins),
    ):
        if given != expected:
            raise ConfigError(
                f"preprocessor_config.json: {name} is {given} (or left out); expected {expected} as in config.json. "
                "Take the two files from one checkpoint."
            )


def as_stored(config: OmniConfig, stored: Mapping[str, Stored]) -> OmniConfig:
    """The config of what is stored: a Talker that was not saved is not there, and a head that was saved is not tied.

    Trainers save such files: with the Talker disabled, and with the base class's flags in config.json.
    """
    spoken = ("talker.", "token2wav.")
    if config.talker is not None and not any(name.startswith(spoken) for name in stored):
        warn_once("no weights of a Talker are stored: the model answers in text only (enable_audio_output: false)")
        config = replace(config, talker=None, token2wav=None)
    if config.thinker.text.tie_word_embeddings and HEAD in stored:
        text = replace(config.thinker.text, tie_word_embeddings=False)
        config = replace(config, thinker=replace(config.thinker, text=text))
    return config


def compare(parts: Parts, stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """Match what is stored with what the modules want: our name -> where it is. Raises WeightsError on any difference.

    A model that does not speak leaves the Talker and Token2Wav of its files unread.
    """
    wanted = parts.tensors()
    present = set(parts.named())
    found: dict[str, Stored] = {}
    unexpected = []
    for official, entry in stored.items():
        ours = to_ours(official)
        if ours is not None and ours in wanted:
            found[ours] = entry
        elif ours is None or ours.split(".")[0] in present:
            unexpected.append(official)
    missing = [to_official(n) or n for n in wanted if n not in found and not OPTIONAL.fullmatch(n)]
    wrong = [
        f"{to_official(n)} is {list(e.shape)}, the config says {list(wanted[n].shape)}"
        for n, e in found.items()
        if tuple(wanted[n].shape) != e.shape
    ]
    wrong += [f"{to_official(n)} is stored as {e.dtype}" for n, e in found.items() if e.dtype not in STORED_DTYPES]
    problems = [
        f"{len(names)} {what}: {'; '.join(names[:4])}{'; ...' if len(names) > 4 else ''}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another form", wrong))
        if names
    ]
    if problems:
        raise WeightsError(
            f"the tensors do not fit config.json. {'. '.join(problems)}. Take weights and config from one checkpoint."
        )
    return found


def native_dtype(stored: Mapping[str, Stored]) -> torch.dtype:
    """The dtype in which the Thinker's embedding table is stored."""
    return STORED_DTYPES[stored["thinker.decoder.embed_tokens.weight"].dtype]


def part_name(name: str) -> str:
    """The part that a tensor belongs to: the first two words of its name, as "thinker.audio"."""
    return ".".join(name.split(".")[:2])


def kept_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
    """The dtype that a tensor is loaded in: that of Thinker and Talker, or float32, in which Token2Wav was trained."""
    return torch.float32 if name.startswith("token2wav.") else dtype


def part_bytes(parts: Parts, dtype: torch.dtype) -> dict[str, int]:
    """The bytes of each part when Thinker and Talker are loaded in ``dtype``."""
    sizes: dict[str, int] = {}
    for name, tensor in parts.tensors().items():
        sizes[part_name(name)] = sizes.get(part_name(name), 0) + tensor.numel() * kept_dtype(name, dtype).itemsize
    return sizes


def fill(
    parts: Parts,
    stored: Mapping[str, Stored],
    dtype: torch.dtype,
    device_of: Callable[[str], torch.device],
    progress: bool = False,
) -> None:
    """Replace meta tensors by stored ones, one at a time, each on its device; one shard is open at a time."""
    by_file: dict[Path, list[str]] = {}
    for name, entry in stored.items():
        by_file.setdefault(entry.file, []).append(name)
    with _bar(progress, sum(entry.nbytes for entry in stored.values())) as advance:
        for path, names in sorted(by_file.items()):
            try:
                with safe_open(str(path), framework="pt") as file:
                    for name in names:
                        kind = kept_dtype(name, dtype)
                        value = torch.empty(stored[name].shape, dtype=kind, device=device_of(name))
                        value.copy_(file.get_tensor(stored[name].name))  # a view of the mapped file: no second copy
                        check_finite(value, stored[name].name, path)
                        assign_tensor(parts, name, value)
                        advance(stored[name].nbytes)
            except (SafetensorError, OSError) as error:
                raise WeightsError(f"{path} cannot be read ({error}). Fetch it again.") from None


def check_finite(value: Tensor, name: str, path: Path) -> None:
    """Refuse a weight that is not numbers. One sum tells: what is no number makes it none, and costs a read."""
    if not bool(value.sum(dtype=torch.float32).isfinite()):
        raise WeightsError(f"{path}: {name} holds NaN or infinity; expected finite numbers. Fetch the file again.")


def assign_tensor(parts: Parts, name: str, value: Tensor) -> None:
    """Put a value in the place of the tensor of that name, by our names."""
    part, path = name.split(".", 1)
    owner_path, _, leaf = path.rpartition(".")
    owner = parts.named()[part].get_submodule(owner_path)
    old = owner.get_parameter(leaf) if leaf in dict(owner.named_parameters(recurse=False)) else None
    if old is not None:
        owner.register_parameter(leaf, nn.Parameter(value, requires_grad=old.requires_grad))
    else:
        owner.register_buffer(leaf, value)  # stored buffers are persistent


def fill_computed(config: OmniConfig, parts: Parts, device: torch.device) -> None:
    """Values that a checkpoint may leave out because they follow from the config."""
    if config.token2wav is not None and parts.token2wav is not None:
        name = "token2wav.dit.rotary_embed.inv_freq"
        if parts.tensors()[name].is_meta:
            dit = config.token2wav.dit
            assign_tensor(parts, name, inverse_frequencies(dit.head_dim, dit.rope_theta, device))
    for part_name, part in parts.named().items():
        for key, tensor in (*part.named_parameters(), *part.named_buffers()):
            if tensor.is_meta:
                raise WeightsError(f"{part_name}.{key} has no value: it is not among the tensors of a checkpoint.")


class _Advance:
    """Counts bytes; draws nothing."""

    def __call__(self, nbytes: int) -> None:
        pass


class _Draw(_Advance):
    def __init__(self, bar: Progress, total: int):
        self.bar = bar
        self.task = bar.add_task("weights", total=total)

    def __call__(self, nbytes: int) -> None:
        self.bar.advance(self.task, nbytes)


@contextmanager
def _bar(show: bool, total: int) -> Iterator[_Advance]:
    if not show:
        yield _Advance()
        return
    columns = (TextColumn("loading {task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield _Draw(bar, total)
