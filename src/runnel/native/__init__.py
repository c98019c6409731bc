"""Kernels for the CPU in C++, optional at run time: without a compiler everything works in PyTorch.

`available()` says whether the extension was built, `instruction_sets()` what this machine can run of it.
The environment variable RUNNEL_NATIVE=0 leaves it out; a path there is that of another build of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any

import torch
from jaxtyping import BFloat16, Float32, Float64
from torch import Tensor


def _found(wanted: str) -> Any:
    """The extension, or None. wanted: "0" for none, "1" for the one that was built with the package, or a path."""
    if wanted == "0":
        return None
    if wanted != "1":
        spec = spec_from_file_location("runnel.native._kernels", wanted)
        if spec is None or spec.loader is None:
            raise ValueError(f"RUNNEL_NATIVE must be 0, 1 or the path of an extension module; got {wanted!r}")
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    try:
        return import_module("runnel.native._kernels")
    except ImportError:
        return None


_kernels: Any = _found(os.environ.get("RUNNEL_NATIVE", "1"))

_PLAIN = (Tensor, torch.nn.Parameter)
_left_out: ContextVar[bool] = ContextVar("left_out", default=False)


def available() -> bool:
    """Whether the extension was built."""
    return _kernels is not None


def kernels() -> Any:
    """The extension. ValueError without it."""
    if _kernels is None:
        raise ValueError("the native extension was not built: `runnel doctor` says what is missing")
    return _kernels


def runs(*tensors: Tensor | None) -> bool:
    """Whether the scans in C++ take these tensors: plain ones of float32 on the CPU."""
    return (
        available()
        and not _left_out.get()
        and all(x is None or (type(x) in _PLAIN and x.dtype == torch.float32 and x.is_cpu) for x in tensors)
    )


@contextmanager
def left_out() -> Iterator[None]:
    """Within, `runs` is never true: everything is done by PyTorch."""
    token = _left_out.set(True)
    try:
        yield
    finally:
        _left_out.reset(token)


def instruction_sets() -> list[str]:
    """What this machine can run of the extension, best first; empty without it."""
    return _kernels.instruction_sets() if available() else []


def use(name: str) -> None:
    """Run the kernels of another instruction set than the best one, e.g. to compare."""
    if not kernels().use(name):
        raise ValueError(f"this machine runs {instruction_sets()}; got {name!r}")


def to_bf16(x: Float32[Tensor, "*N"]) -> BFloat16[Tensor, "*N"]:
    """Rounded to nearest even."""
    x = x.contiguous()
    out = torch.empty_like(x, dtype=torch.bfloat16)
    kernels().to_bf16(x.data_ptr(), out.data_ptr(), x.numel(), torch.get_num_threads())
    return out


def uniform(
    seeds: Sequence[int], positions: Sequence[int], outcomes: int, stream: int
) -> Float64[Tensor, "N {outcomes}"]:
    """As `runnel.ops.sampling.uniform`, to the bit."""
    if len(seeds) != len(positions):
        raise ValueError(f"seeds and positions must be as many; got {len(seeds)} and {len(positions)}")
    out = torch.empty(len(seeds), outcomes, dtype=torch.float64)
    kernels().uniform(list(seeds), list(positions), stream >> 64, stream % 2**64, outcomes, out.data_ptr())
    return out
