"""Feature maps of kernels: vectors whose inner products are functions of inner products."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def pairs(x: Float[Tensor, "*B K"]) -> Float[Tensor, "*B F"]:
    """All products of two entries, K(K+1)/2 of them: the inner product of two such maps is (x . y)^2.

    x_a x_b and x_b x_a share a channel, of weight sqrt(2).
    """
    first, second = torch.triu_indices(x.shape[-1], x.shape[-1], device=x.device)
    weight = 2.0 ** (0.5 * (first != second).to(x.dtype))
    return x[..., first] * x[..., second] * weight


def taylor(x: Float[Tensor, "*B K"]) -> Float[Tensor, "*B F"]:
    """Inner products 1 + s + s^2 / 2, the Taylor series of exp(s), where s = x . y / sqrt(K).

    It has 1 + K + K(K+1)/2 entries ("Simple linear attention language models balance the recall-throughput tradeoff",
    2024, arXiv:2402.18668).
    """
    width = x.shape[-1]
    return torch.cat([torch.ones_like(x[..., :1]), x * width**-0.25, pairs(x) * (2 * width) ** -0.5], dim=-1)
