"""Activations by the names that published configurations use."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import gelu, relu, sigmoid, silu


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its approximation with tanh."""
    return gelu(x, approximate="tanh")


def squared_relu(x: Tensor) -> Tensor:
    """relu(x)^2 ("Primer", 2021, arXiv:2109.08668)."""
    return relu(x).square()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": silu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "relu": relu,
    "squared_relu": squared_relu,
    "sigmoid": sigmoid,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """ValueError when there is none of this name."""
    if name not in ACTIVATIONS:
        raise ValueError(f"an activation must be one of {', '.join(ACTIVATIONS)}; got {name!r}")
    return ACTIVATIONS[name]
