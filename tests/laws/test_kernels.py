"""Kernels in Triton without a GPU: they are their twins, compile for the card they are for, and are chosen well."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from descant.config import BigVGANConfig, DecoderConfig, DiTConfig
from descant.engine.engine import Engine
from descant.model.block_attention import rotate_pairs
from descant.model.dit import modulate
from descant.model.vocoder import FILTER_TAPS, snake
from descant.nn import kernels
from descant.nn.fusion import silu_mul
from descant.nn.kernels import OPERATIONS, Operation, kernel_faults, left_out
from descant.nn.norm import rms_norm
from descant.nn.pages import attend_pages
from descant.nn.rope import turn_heads
from tests.engine import rig
from tests.graph import Count
from tests.laws.test_graph_steps import official

triton = pytest.importorskip("triton", reason="Triton is there on Linux alone")
CPU = torch.device("cpu")
HOPPER, SHARED = 90, 227 * 1024  # its compute capability, and bytes that the programs of one processor may share
SINE_STACK = 64  # bytes in which the sine of a large angle turns it back


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


# ------------------------------------------------------------ they are their twins


@pytest.mark.slow
def test_every_program_is_its_twin_by_the_interpreter() -> None:
    given = [sys.executable, "-m", "pytest", "-x", str(Path(__file__).with_name("interpreted_kernels.py"))]
    done = subprocess.run(given, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


# ------------------------------------------------------------ they compile for the card, at the official shapes


def meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


def of_decoder(cfg: DecoderConfig, dtype: torch.dtype = torch.bfloat16) -> dict[Operation, tuple[Any, ...]]:
    """What a step of four rows gives to the operations of a decoder."""
    rows = 4
    queries, keys, dim = cfg.num_attention_heads, cfg.num_key_value_heads, cfg.head_dim
    heads = meta(rows, 1, queries + 2 * keys, dim, dtype=dtype)
    words = meta(rows, 11, dtype=torch.long)
    new = heads[:, 0, queries:].view(rows, 2, keys, dim)
    pages = meta(64, rows, dtype=torch.long)
    angles = [meta(rows, 1, 1, dim, dtype=torch.float32) for _ in range(2)]
    return {
        attend_pages: (heads[:, 0, :queries], new, meta(1040, 2, keys, dim, dtype=dtype), pages, words[:, 10], 16),
        turn_heads: (heads[:, :, : queries + keys], *angles),
        rms_norm: (meta(rows, 1, cfg.hidden_size, dtype=dtype), meta(cfg.hidden_size, dtype=dtype), 1e-6),
        silu_mul: (meta(rows, 1, 2 * cfg.intermediate_size, dtype=dtype),),
    }


def of_dit(cfg: DiTConfig, frames: int = 48) -> dict[Operation, tuple[Any, ...]]:
    width, dim = cfg.hidden_size, cfg.head_dim
    moved = [meta(1, 1, width, dtype=torch.float32) for _ in range(2)]
    heads = meta(2, frames, 3, cfg.num_attention_heads, dim, dtype=torch.float32)[:, :, :2, 0]
    angles = [meta(frames, 1, dim, dtype=torch.float32) for _ in range(2)]
    return {
        modulate: (meta(2, frames, width, dtype=torch.float32), *moved, 1e-6),
        rotate_pairs: (heads, *angles),
    }


def of_vocoder(cfg: BigVGANConfig, stage: int) -> dict[Operation, tuple[Any, ...]]:
    channels = cfg.upsample_initial_channel >> (stage + 1)
    constants = [meta(channels, 1, 1, dtype=torch.float32) for _ in range(2)]
    taps = [meta(channels, 1, 1, FILTER_TAPS, dtype=torch.float32) for _ in range(2)]
    x = meta(1, channels, 1, 290, dtype=torch.float32).to(memory_format=torch.channels_last)
    return {snake: (x, *constants, *taps)}


def official_operations() -> dict[str, tuple[Operation, tuple[Any, ...]]]:
    """The operations of the official models, each of their shapes once."""
    seven, three = official("7b"), official("3b")
    vocoder = seven.token2wav.vocoder
    assert isinstance(vocoder, BigVGANConfig)
    parts = {
        "7b thinker": of_decoder(seven.thinker.text),
        "7b talker": of_decoder(seven.talker.decoder),
        "7b thinker in float32": of_decoder(seven.thinker.text, torch.float32),
        "3b thinker": of_decoder(three.thinker.text),
        "3b talker": of_decoder(three.talker.decoder),
        "dit": of_dit(seven.token2wav.dit),
        "vocoder, widest": of_vocoder(vocoder, 0),
        "vocoder, narrowest": of_vocoder(vocoder, 5),
    }
    return {f"{part}: {one.name}": (one, given) for part, all_of in parts.items() for one, given in all_of.items()}


def compiled(launch: Any) -> Any:
    """A launch, compiled for Hopper as Triton does at its first call, with pointers that are multiples of 16 bytes."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kinds = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.int64: "i64"}
    names, signature, even = launch.program.arg_names, {}, {}
    for place, name in enumerate(names):
        value = launch.args.get(name)
        if isinstance(value, Tensor):
            signature[name], even[place,] = f"*{kinds[value.dtype]}", [["tt.divisibility", 16]]
        else:
            signature[name] = "constexpr" if value is None else {int: "i32", float: "fp32"}[type(value)]
    source = ASTSource(launch.program, signature, dict(launch.constants), even)
    options = {"num_warps": launch.warps, "num_stages": launch.stages}
    return triton.compile(source, target=GPUTarget("cuda", HOPPER, 32), options=options)


def spilled(cubin: bytes, folder: Path) -> int:
    """Bytes of each thread that found no register, as NVIDIA's own tool tells."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    (folder / "kernel.cubin").write_bytes(cubin)
    told = subprocess.run([tool, "-res-usage", folder / "kernel.cubin"], capture_output=True, text=True, check=True)
    [stack, local] = re.findall(r"(?:STACK|LOCAL):(\d+)", told.stdout)
    return int(stack) + int(local)


@pytest.mark.parametrize("name", official_operations())
def test_every_kernel_compiles_for_the_official_shapes(name: str, tmp_path: Path) -> None:
    from descant.nn.programs import LAUNCHES

    operation, given = official_operations()[name]
    launches, found = LAUNCHES[operation.name](*given)
    assert len(launches) == Count.SEVERAL.get(operation.name, 1)
    shapes = operation.kernel(*given)
    assert (found is shapes is None) or (found.shape, found.dtype) == (shapes.shape, shapes.dtype)
    for launch in launches:
        made = compiled(launch)
        stack = SINE_STACK if operation is snake else 0
        assert made.metadata.shared <= SHARED and spilled(made.asm["cubin"], tmp_path) <= stack


# ------------------------------------------------------------ where they run


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_the_twin_is_what_the_operation_does_on_a_cpu(operation: Operation) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        called, twin, op = (operation.example(CPU, dtype) for _ in range(3))
        results = operation(*called), operation.twin(*twin), operation.kernel(*op)
        for others in zip((results[0], *called), (results[1], *twin), (results[2], *op), strict=True):
            assert all(torch.equal(others[0], one) for one in others if isinstance(one, Tensor))


def test_kernels_run_on_gpus_without_gradients() -> None:
    x = torch.empty(2, 4)
    assert not silu_mul.fits(x) and silu_mul.fits(x.to("meta")) and not silu_mul.fits(x.to("meta").double())
    with torch.inference_mode(False), torch.enable_grad():
        assert not silu_mul.fits(torch.empty(2, 4, device="meta"))
    with left_out(["silu_mul"]):
        assert not silu_mul.fits(x.to("meta")) and rms_norm.fits(x.to("meta"))
    assert silu_mul.fits(x.to("meta"))
    assert silu_mul.fault(CPU, torch.float32) == "it is no CUDA device" and kernel_faults() == ()


def fails(x: Tensor) -> Tensor:
    raise RuntimeError("no compiler\nand a long story")


TRIALS: dict[str, tuple[Callable[[Tensor], Tensor], str | None]] = {
    "it works": (lambda x: x + 1, None),
    "it is wrong": (lambda x: x + 1.1, "it does not give what torch gives"),
    "it writes where it should not": (lambda x: x.add_(1).clone(), "it does not give what torch gives"),
    "no number": (lambda x: x / 0, "it does not give what torch gives"),
    "it fails": (fails, "no compiler"),
}


@pytest.mark.parametrize("trial", TRIALS)
def test_a_kernel_that_does_not_do_what_torch_does_is_not_used(trial: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A card is told by a stand-in: the CPU, whose kernel is another one."""
    kernel, reason = TRIALS[trial]
    monkeypatch.setattr(kernels, "unfit", lambda device: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(silu_mul, "faults", {})
    monkeypatch.setattr(silu_mul, "twin", lambda x: x + 1)
    monkeypatch.setattr(silu_mul, "kernel", kernel)
    assert silu_mul.fault(CPU, torch.float32) == silu_mul.fault(CPU, torch.float32) == reason
    silu_mul.faults[torch.device("cuda", 0), torch.bfloat16] = reason
    assert kernel_faults() == (() if reason is None else (f"kernel silu_mul, bfloat16: {reason}",))


def test_the_engine_says_which_kernels_torch_stands_in_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silu_mul, "faults", {(torch.device("cuda", 0), torch.bfloat16): "no compiler"})
    assert Engine(rig.models()).step_faults == ("kernel silu_mul, bfloat16: no compiler",)


def test_where_triton_is_not_installed_torch_does_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    assert kernels.unfit(torch.device("cuda")) == "Triton is not installed"
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "older" in str(kernels.unfit(torch.device("cuda")))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert kernels.unfit(torch.device("cuda")) is None
