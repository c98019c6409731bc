"""What this machine does and what a model keeps on it: the numbers of a plan, measured instead of looked up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from runnel.plans import Device, Polynomial

SIDE, REPEATS = 1024, 5
NUMBERS = 1 << 24


def this_machine(memory: float, devices: int) -> Device:
    """This process's share of the machine, in float32: the median of a few tries of each number.

    The link is a gloo or NCCL all-reduce among the processes that torchrun started; alone, a copy in memory, since
    there is nothing to send.
    """
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    speed = bandwidth(kind) if devices == 1 else link(kind, devices)
    return Device(memory, operations(kind), speed, speed, devices, 0.0, efficiency=1.0, overlaps=kind != "cpu")


def operations(kind: str) -> float:
    """Operations a second of a product of two matrices."""
    a = torch.randn(SIDE, SIDE, device=kind)
    return 2.0 * SIDE**3 / seconds(lambda: a @ a, kind)


def bandwidth(kind: str) -> float:
    """Bytes a second that are read and written when a tensor is copied."""
    a = torch.zeros(NUMBERS, device=kind)
    return 2.0 * a.nbytes / seconds(lambda: a.clone(), kind)


def link(kind: str, devices: int) -> float:
    """Bytes a second that a process sends in an all-reduce: 2 (n - 1) / n of the tensor."""
    a = torch.zeros(NUMBERS // 8, device=kind)
    return 2.0 * a.nbytes * (devices - 1) / devices / seconds(lambda: dist.all_reduce(a), kind)


@contextmanager
def keeping(held: Iterable[Tensor]) -> Iterator[Callable[[], int]]:
    """What says how many bytes the block has kept so far for the backward pass, beside what is held anyway."""
    known, found = {x.untyped_storage().data_ptr() for x in held}, {}

    def look(x: Tensor) -> Tensor:
        if x.untyped_storage().data_ptr() not in known:
            found[x.untyped_storage().data_ptr()] = x.untyped_storage()
        return x

    with saved_tensors_hooks(look, lambda x: x):
        yield lambda: sum(storage.nbytes() for storage in found.values())  # what FSDP2 has freed counts nothing


def kept(call: Callable[[], object], held: Iterable[Tensor]) -> int:
    """Bytes of memory that a call keeps for the backward pass."""
    with keeping(held) as size:
        made = call()
        found = size()
    del made
    return found


def curve(lengths: Sequence[int], sizes: Sequence[float]) -> Polynomial:
    """The polynomial in the length that goes through the sizes."""
    powers = np.vander(np.array(lengths, dtype=np.float64), increasing=True)
    return tuple(np.linalg.solve(powers, np.array(sizes, dtype=np.float64)).tolist())


def pace(lengths: Sequence[int], seconds: Sequence[float]) -> Polynomial:
    """Seconds that grow with the length and its square, as the last two say; exact at the last."""
    if len(lengths) < 2:
        return (0.0, seconds[-1] / lengths[-1])
    (short, long), (quick, slow) = lengths[-2:], seconds[-2:]
    square = max(0.0, (slow / long - quick / short) / (long - short))
    return (0.0, slow / long - square * long, square)


def seconds(call: Callable[[], object], kind: str) -> float:
    """The median of some tries."""
    return median(timed(call, kind) for _ in range(REPEATS))


def in_turn(calls: Sequence[Callable[[], object]], kind: str) -> list[float]:
    """The same of several calls, so that what else the machine does meets all alike; a first round warms up."""
    rounds = [[timed(call, kind) for call in calls] for _ in range(1 + REPEATS)]
    return [median(times) for times in zip(*rounds[1:], strict=True)]


def timed(call: Callable[[], object], kind: str) -> float:
    """Seconds of one call."""
    _wait(kind)
    started = time.perf_counter()
    call()
    _wait(kind)
    return time.perf_counter() - started


def _wait(kind: str) -> None:
    if kind == "cuda":
        torch.cuda.synchronize()
