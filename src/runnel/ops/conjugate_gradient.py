"""Conjugate gradients: many small systems A x = b at once, each known only by its products with vectors.

Hestenes and Stiefel, "Methods of Conjugate Gradients for Solving Linear Systems", 1952. A is symmetric and positive.
The gradient is that of the solution, not of the iterations: the adjoint of a solve is a solve.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

Product = Callable[[Tensor], Tensor]
"""(..., K) -> (..., K): A x for every system."""


def solve(product: Product, b: Float[Tensor, "*B K"], iterations: int) -> Float[Tensor, "*B K"]:
    """x with A x = b after at most `iterations` products (K are enough but for rounding).

    Gradients reach b and whatever `product` is made of.
    """
    with torch.no_grad():
        x = _iterate(product, b, iterations)
    return x + _Implicit.apply(b - product(x), product, iterations)


class _Implicit(torch.autograd.Function):
    """Zero, with the gradient of A^-1 (b - A x): what moves the residual moves the solution."""

    @staticmethod
    def forward(ctx: Any, residual: Tensor, product: Product, iterations: int) -> Tensor:
        ctx.product, ctx.iterations = product, iterations
        return torch.zeros_like(residual)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _iterate(ctx.product, grad, ctx.iterations), None, None


def _iterate(product: Product, b: Tensor, iterations: int) -> Tensor:
    """The plain method from x = 0. A system whose residual is at rounding stays as it is."""
    x, residual, direction = torch.zeros_like(b), b, b
    size = _dot(residual, residual)
    enough = size * torch.finfo(b.dtype).eps ** 2
    for _ in range(iterations):
        image = product(direction)
        moving = size > enough
        rate = torch.where(moving, size / _dot(direction, image).where(moving, 1), 0)
        x, residual = x + rate * direction, residual - rate * image
        before, size = size, _dot(residual, residual)
        direction = residual + torch.where(moving, size / before.where(moving, 1), 0) * direction
    return x


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(-1, keepdim=True)
