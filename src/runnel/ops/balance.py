"""Balance among routed experts: as a loss whose gradient never shows in an output, or by transport."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class Balanced(torch.autograd.Function):
    """The identity on p (tokens, n); backward adds the gradient of weight * n * sum_e share_e mean(p_e)."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, share: Tensor, weight: float) -> Tensor:
        ctx.slope = weight * p.shape[1] / max(1, p.shape[0]) * share
        return p.view_as(p)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad + ctx.slope, None, None


@torch.no_grad()
def sinkhorn(scores: Float[Tensor, "N E"], rounds: int) -> Float[Tensor, "N E"]:
    """log of the plan that is nearest to exp(scores) among those whose rows sum to 1 and columns to N / E, by `rounds`
    of dividing rows, then columns, by their sums.
    """
    plan, column = scores, math.log(scores.shape[0] / scores.shape[1])
    for _ in range(rounds):
        plan = plan - plan.logsumexp(1, keepdim=True)
        plan = plan - plan.logsumexp(0, keepdim=True) + column
    return plan


class Costed(torch.autograd.Function):
    """The identity on what is left of every token (..., 1); backward adds the gradient of price * its mean, `where`."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, where: Tensor, price: float) -> Tensor:
        ctx.slope = where * (price / left.numel())
        return left.view_as(left)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad + ctx.slope, None, None
