"""A CUDA graph on the CPU: what a capture takes and refuses, what it costs, and what its replay gives, without a GPU.

``recorded`` tapes the operations of a run and runs the tape again on the very same storages; what a capture would
refuse, it refuses. ``Sealed`` finds what enters a captured region, or leaves it. ``Count`` counts the kernels of a
region, on the meta device at any size. ``Crossings`` counts what passes between the host and a device.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Run = Callable[[], tuple[Tensor, ...]]
POISON = 7.0  # what lies in an output between two replays: a region that reads its old outputs shows it


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def where() -> str:
    """The line of descant that is being run."""
    ours = [frame for frame in traceback.extract_stack() if "/descant/" in frame.filename]
    return f"{ours[-1].filename.rpartition('/descant/')[2]}:{ours[-1].lineno} {ours[-1].line}" if ours else "a test"


def refusal(func: Any) -> str | None:
    """Why a capture refuses an operation: what cannot be enqueued without waiting for the device."""
    if torch.Tag.data_dependent_output in func.tags:
        return "reads a value on the host"
    if torch.Tag.dynamic_output_shape in func.tags:
        return "has a shape that follows a value"
    if func is torch.ops.aten.lift_fresh.default:
        return "copies a tensor that was made on the host"
    return None


class Tape(TorchDispatchMode):
    """Writes down the operations of a run. RuntimeError, as from a capture, where one may not be captured."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if (why := refusal(func)) is not None:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func} {why} ({where()})")
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out


def recorded(run: Run) -> Run:
    """``run`` as a graph: its operations on the storages that they had, whatever Python would decide today."""
    run()
    with Tape() as tape:
        outputs = run()

    def replay() -> tuple[Tensor, ...]:
        for out in outputs:
            out.fill_(POISON)
        for func, args, kwargs, out in tape.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tensors(out), tensors(again), strict=True):
                if storage(old) != storage(new):
                    old.copy_(new)
        return outputs

    return replay


class Sealed(TorchDispatchMode):
    """Finds in a region what a graph could not repeat: tensors from outside that were not ``known``, values that the
    host reads, shapes that follow them. ``found``: one line for each."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.kept = list(known)  # storages must live, or another one may have their address
        self.storages = {storage(tensor) for tensor in self.kept}
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        foreign = [tuple(t.shape) for t in tensors((args, kwargs)) if storage(t) not in self.storages]
        why = refusal(func) or (f"reads {foreign} from outside" if foreign else None)
        if why is not None:
            self.found.append(f"{func} {why} ({where()})")
        out = func(*args, **(kwargs or {}))
        self.kept += tensors(out)
        self.storages |= {storage(tensor) for tensor in tensors(out)}
        return out


class Count(TorchDispatchMode):
    """Counts the kernels of a region by the name of the operation: what writes memory; no views, no allocations."""

    SEVERAL: ClassVar = {"attend_pages": 2}  # of our own operations (test_kernels.py: as many as they launch)
    FREE = frozenset({"empty", "new_empty", "empty_strided", "empty_like", "lift_fresh", "detach"})

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        name = str(func).split(".")[1]
        given = {storage(t) for t in tensors((args, kwargs))}
        if name not in self.FREE and (func._schema.is_mutable or any(storage(t) not in given for t in tensors(out))):
            self.kernels[name] += self.SEVERAL.get(name, 1)
        return out

    @property
    def total(self) -> int:
        return self.kernels.total()


class Crossings(TorchFunctionMode):
    """Counts the calls that send a device something of the host, and those that ask it for a value. Without a GPU the
    two share their memory: so every call that names a device counts as if it were another one."""

    SENT = frozenset({"tensor", "as_tensor", "to", "cuda"})
    FETCHED = frozenset({"tolist", "item", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__"})

    def __init__(self) -> None:
        super().__init__()
        self.sent: Counter[str] = Counter()
        self.fetched: Counter[str] = Counter()

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.__name__
        named = "device" in kwargs or any(isinstance(arg, torch.device | str) for arg in args[1:])
        if (name in self.SENT and named) or (name == "copy_" and kwargs.get("non_blocking")):
            self.sent[where()] += 1
        if name in self.FETCHED:
            self.fetched[where()] += 1
        if name == "__setitem__" and isinstance(args[2], bool | int | float):
            self.sent[where()] += 1  # a tensor is made of it on the host
        return func(*args, **kwargs)
