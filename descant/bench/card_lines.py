"""The lines of the bench of one card, and the means to measure them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from descant.bench.harness import median
from descant.engine.engine import Engine
from descant.engine.session import Request
from descant.errors import SessionError
from descant.types import Finished


@dataclass(frozen=True)
class CardLine:
    """One line of the table. goal: in the same unit, on an H200 (H100 in brackets); empty: none is set."""

    what: str
    value: float
    unit: str
    goal: str = ""


def answered(engine: Engine, asked: Sequence[Request], tenant: str = "") -> list[Finished]:
    """All at once; their ends. The clock of each starts now. tenant: whose pages may be shared."""
    begin = time.perf_counter()
    settings = [replace(one.settings, tenant=tenant or one.settings.tenant) for one in asked]
    timed = [replace(one, settings=terms, clock=begin) for one, terms in zip(asked, settings, strict=True)]
    return [last_of(list(answer)) for answer in [engine.submit(one) for one in timed]]


def last_of(events: Sequence[object]) -> Finished:
    last = events[-1]
    if not isinstance(last, Finished):
        raise SessionError(f"an answer ended with {type(last).__name__}")
    return last


def copy_bandwidth(device: torch.device, size: int) -> float:
    """Bytes a second that a copy reads and writes."""
    memory, taken = torch.zeros(size // 4, device=device), []
    for _ in range(5):
        synchronise(device)
        begin = time.perf_counter()
        memory.clone()
        synchronise(device)
        taken.append(time.perf_counter() - begin)
    return 2 * size / median(taken)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reserved(device: torch.device) -> int:
    """Bytes that torch holds of the card."""
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else 0


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def p95(values: Sequence[float]) -> float:
    return float(np.percentile(values, 95)) if values else 0.0


def card_row(line: CardLine) -> str:
    """A line for people."""
    goal = f"   goal {line.goal}" if line.goal else ""
    return f"{line.what:<52}{line.value:>10.3g} {line.unit:<16}{goal}".rstrip()
