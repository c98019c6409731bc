"""How concentrated attention is, and the scale at which exponential features are as concentrated as softmax.

Paper: "Linear Log-Normal Attention with Unbiased Concentration" (2023, arXiv:2311.13541), sections 3 and 4.
"""

from __future__ import annotations

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

SAMPLES = 2048


def entropy(weights: Float[Tensor, "*B T T"]) -> Float[Tensor, "*B"]:
    """Mean entropy of the rows of an attention matrix, in bits: 0 for one token each, log2 T for all alike."""
    return -torch.xlogy(weights, weights).sum(-1).mean(-1) / torch.log(torch.tensor(2.0, dtype=weights.dtype))


def spectral_gap(weights: Float[Tensor, "*B T T"]) -> Float[Tensor, "*B"]:
    """1 - |lambda_2| of an attention matrix, whose first eigenvalue is 1: 1 for all rows alike, 0 for the identity."""
    return 1 - torch.linalg.eigvals(weights).abs().sort(dim=-1, descending=True).values[..., 1]


@cache
def matched_scale(width: int, variance: float) -> float:
    """The a for which log(sum_c exp(a (q_c + k_c))), q and k standard normal of this width, has the given variance.

    The logits of softmax, q . k / sqrt(width), have the variance sigma_q^2 sigma_k^2: this is the paper's moment
    matching. The paper fits a line to simulations; here one simulation, its noise fixed, is bisected.
    """
    noise = torch.randn(SAMPLES, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2**0.5
    low, high = 0.0, 2.0 * (variance * width) ** 0.5 + 2.0
    for _ in range(24):
        middle = (low + high) / 2
        matched = float((middle * noise).logsumexp(-1).var()) >= variance
        low, high = (low, middle) if matched else (middle, high)
    return high
