"""State is accumulated in at least float32, whatever the dtype of the weights and of autocast."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

F = TypeVar("F", bound=Callable[..., Any])


def full_precision(primitive: F) -> F:
    """Run a primitive outside autocast, its half-precision tensor arguments widened to float32.

    The first result (per-token outputs) comes back in the dtype of the first argument; memories stay wide.
    """

    @functools.wraps(primitive)
    def wide(*args: Any, **kwargs: Any) -> Any:
        first = args[0]
        with torch.autocast(first.device.type, enabled=False):
            y, memory = primitive(*[widen(a) for a in args], **{name: widen(a) for name, a in kwargs.items()})
        return y.to(first.dtype), memory

    return wide  # type: ignore[return-value]


def widen(value: Any) -> Any:
    """Half-precision tensors as float32; everything else as it is."""
    half = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if half else value
