"""AdamW with moments of one byte a number (torchao's): two bytes a weight instead of eight.

8-bit Optimizers via Block-wise Quantization (2021, 2110.02861). Tensors of less than 4096 numbers, or not of
whole blocks of 256, keep theirs in float32. A checkpoint holds codes and scales as they are: a run goes on to the bit.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

PARTS = ("codes", "scale")
"""What of a moment a checkpoint holds; the table from codes to numbers is always the same."""


def adamw(groups: Sequence[Mapping[str, Any]], lr: float, betas: tuple[float, float]) -> Optimizer:
    """The optimiser. ValueError where torchao is not installed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it tells of kernels for other machines
    try:
        from torchao.optim import AdamW8bit
    except ImportError:
        raise ValueError("the optimizer adamw8bit needs torchao: pip install 'runnel[eight-bits]'") from None
    finally:
        logging.disable(before)
    optimizer: Optimizer = AdamW8bit([dict(group) for group in groups], lr=lr, betas=betas)
    if optimizer.param_groups[0]["params"][0].device.type == "cpu":  # compiled for each shape, it would start slowly
        optimizer.step = torch.compiler.set_stance("force_eager")(optimizer.step)  # type: ignore[method-assign]
    return optimizer


def parts(name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """A buffer of an optimiser by name: one of 8 bits in its parts."""
    if hasattr(value, "codes"):
        yield from ((f"{name}.{part}", getattr(value, part)) for part in PARTS)
    else:
        yield name, value


def joined(buffers: Mapping[str, Tensor], parameter: Tensor) -> dict[str, Tensor]:
    """The inverse for all buffers of a parameter."""
    found = {name: value for name, value in buffers.items() if "." not in name}
    for name in {name.partition(".")[0] for name in buffers if "." in name}:
        from torchao.optim.subclass_8bit import OptimState8bit

        codes, scale = [buffers[f"{name}.{part}"] for part in PARTS]
        size = codes.numel() // scale.numel()
        made = OptimState8bit.zeros(codes.shape, name == "exp_avg", size, parameter.device, parameter.dtype)
        made.codes.copy_(codes)
        made.scale.copy_(scale)
        found[name] = made
    return found
