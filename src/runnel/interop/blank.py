"""A model without numbers: its shapes and what its parameters are for, made before a file gives them values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import init
from torch.overrides import TorchFunctionMode

from runnel.model import Model, ModelConfig

FILLS = (init.kaiming_uniform_, init.normal_, init.uniform_, torch.Tensor.normal_, torch.Tensor.uniform_)


class _Unfilled(TorchFunctionMode):
    """Leaves out what only fills in random numbers: on the meta device there are none, and it takes its time."""

    def __torch_function__(self, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def blank(config: ModelConfig) -> Model:
    """The model on the meta device."""
    with torch.device("meta"), _Unfilled():
        return Model(config)
