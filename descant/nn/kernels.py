"""Operations that are one kernel on CUDA, or two, where torch has several: each beside its torch twin.

The twin is the law, and all that a CPU runs. ``nn.programs`` has the kernels, in Triton. Here alone it is chosen:
a kernel runs on CUDA with Triton, without gradients, in float32 or half precision, once it has given there what its
twin gives on a small example. What could not (no compiler for the host's part, an older card) is left to the twin,
and ``kernel_faults`` says why. The meta device stands for a GPU: kernels and memory are counted on it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from subprocess import CalledProcessError
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

LIBRARY = torch.library.Library("descant", "DEF")  # type: ignore[no-untyped-call]
KERNEL_DTYPES = frozenset({torch.float32, torch.bfloat16, torch.float16})
LEAST_CAPABILITY = 8, 0  # of the card: tensor cores for bfloat16
TOLERANCES = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}

# device, dtype -> arguments of an operation, small, the same at every call
OperationExample = Callable[[torch.device, torch.dtype], tuple[Any, ...]]


class Operation:
    """An operation of the library ``descant``: the twin's on a CPU, ``nn.programs`` on CUDA, shapes on meta.

    schema: as torch writes it, arguments that are written with ``(a!)``. twin, shapes: take what it takes; the
    result of ``shapes`` has no values.
    """

    def __init__(self, schema: str, twin: Callable[..., Any], shapes: Callable[..., Any], example: OperationExample):
        self.name = schema.partition("(")[0]
        LIBRARY.define(schema)  # type: ignore[no-untyped-call]
        self.twin, self.example = twin, example
        self.faults: dict[tuple[torch.device, torch.dtype], str | None] = {}
        for key, kernel in {"CPU": twin, "Meta": shapes, "CUDA": self._launch}.items():
            LIBRARY.impl(self.name, kernel, key)  # type: ignore[no-untyped-call]
        self.kernel: Callable[..., Any] = getattr(torch.ops.descant, self.name)
        OPERATIONS.append(self)

    def __call__(self, x: Tensor, *rest: Any) -> Any:
        """The operation of ``x``, whose device and dtype choose, and the rest."""
        return self.kernel(x, *rest) if self.fits(x) else self.twin(x, *rest)

    def fits(self, x: Tensor) -> bool:
        """True where the kernel runs for a first argument like ``x``."""
        if x.is_cpu or torch.is_grad_enabled() or x.dtype not in KERNEL_DTYPES or self.name in LEFT_OUT:
            return False
        return x.is_meta or self.fault(x.device, x.dtype) is None

    def fault(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why the kernel is not used there, or None. It is tried when it is first asked for."""
        if (device, dtype) not in self.faults:
            reason = self.faults[device, dtype] = unfit(device) or self._tried(device, dtype)
            if reason is not None and device.type == "cuda":
                log.warning("the kernel %s is left to torch on %s, %s: %s", self.name, device, dtype, reason)
        return self.faults[device, dtype]

    def _tried(self, device: torch.device, dtype: torch.dtype) -> str | None:
        mine, theirs = self.example(device, dtype), self.example(device, dtype)
        try:
            from triton.errors import TritonError

            try:
                found = self.kernel(*mine)
            except TritonError as error:
                raise RuntimeError(f"{type(error).__name__}: {error}") from None
            torch.cuda.synchronize(device)
        except (ImportError, OSError, RuntimeError, ValueError, CalledProcessError) as error:
            return str(error).strip().partition("\n")[0]
        near = TOLERANCES[dtype]
        pairs = zip((found, *mine), (self.twin(*theirs), *theirs), strict=True)  # and what was written into
        same = all(torch.allclose(a, b, near, near) for a, b in pairs if isinstance(a, Tensor))
        return None if same else "it does not give what torch gives"

    def _launch(self, *given: Any) -> Any:
        from descant.nn.programs import LAUNCHES

        launches, result = LAUNCHES[self.name](*given)
        with torch.cuda.device(given[0].device):
            for launch in launches:
                launch.run()
        return result


OPERATIONS: list[Operation] = []
LEFT_OUT: set[str] = set()  # names of operations that are the twin's whatever the device


@contextmanager
def left_out(names: Sequence[str]) -> Iterator[None]:
    """Inside, these operations are the twin's on every device: what their kernels are worth can be measured."""
    before = set(LEFT_OUT)
    LEFT_OUT.update(names)
    try:
        yield
    finally:
        LEFT_OUT.intersection_update(before)


def unfit(device: torch.device) -> str | None:
    """Why a device has no kernels, or None."""
    if device.type != "cuda":
        return "it is no CUDA device"
    if find_spec("triton") is None:
        return "Triton is not installed"
    if torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
        return "the card is older than its tensor cores for bfloat16"
    return None


def kernel_faults() -> tuple[str, ...]:
    """The kernels that torch stands in for on a GPU, one line each. May be read from any thread."""
    return tuple(
        f"kernel {operation.name}, {str(dtype).removeprefix('torch.')}: {reason}"
        for operation in OPERATIONS
        for (device, dtype), reason in list(operation.faults.items())
        if reason is not None and device.type == "cuda"
    )


def numbers(shape: Sequence[int], device: torch.device, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Standard normal numbers, the same on every device: for examples."""
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), device="cpu")
    return drawn.to(device, dtype)
