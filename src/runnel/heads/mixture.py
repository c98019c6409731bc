"""Mixture: a mixture of normal distributions per channel, for laws with several modes.

Paper: "Mixture Density Networks" (Bishop, 1994), eqs. (22) to (27).

    p(y) = sum_k w_k N(y; m_k, s_k^2),  w = softmax of logits                          (1)
    P(Y < y) = sum_k w_k Phi((y - m_k) / s_k)                                          (2)

| code | paper |
|---|---|
| weights, means, scales | alpha, mu, sigma |

The P = 3 C k parameters are, for every channel, log-weights, means, log standard deviations. Quantiles are bisections
of (2); a draw is the quantile at its noise, so that close noise gives close draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import log_softmax

from runnel.head import Head
from runnel.mixer import linear

PAPERS: dict[str, str] = {}

HALVINGS = 50
REACH = 10.0
"""Quantiles are looked for within so many standard deviations of the components."""


@dataclass(frozen=True)
class Config:
    """components: normal distributions per channel."""

    components: int = 3

    def __post_init__(self) -> None:
        if self.components < 1:
            raise ValueError(f"components of mixture must be at least 1; got {self.components}")


class Mixture(Head):
    def __init__(self, d_model: int, outcomes: int, config: Config) -> None:
        super().__init__()
        self.components = config.components
        self.parameters_of = linear(d_model, 3 * config.components * outcomes, bias=True)
        with torch.no_grad():  # means start apart: equal ones would learn the same for ever
            bias = self.parameters_of.bias.view(outcomes, 3, config.components)
            bias[:, 1] = torch.linspace(-1, 1, config.components) if config.components > 1 else 0.0

    def forward(
        self, hidden: Float[Tensor, "*B D"], positions: Int[Tensor, "*B"] | None = None
    ) -> Float[Tensor, "*B P"]:
        logits, means, scales = self._parts(self.parameters_of(hidden))
        return torch.stack([log_softmax(logits, -1), means, scales], dim=-2).flatten(-3)

    def log_prob(self, parameters: Float[Tensor, "*B P"], target: Float[Tensor, "*B C"]) -> Float[Tensor, "*B"]:
        """Equation (1), summed over channels."""
        log_weights, means, log_scales = self._parts(parameters)
        z = (target[..., None] - means) * (-log_scales).exp()
        normal = -0.5 * z**2 - log_scales - 0.5 * math.log(2 * math.pi)
        return (log_weights + normal).logsumexp(-1).sum(-1)

    @torch.no_grad()
    def sample(self, parameters: Float[Tensor, "*B P"], uniform: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        """By inversion of equation (2)."""
        log_weights, means, log_scales = self._parts(parameters)
        weights, scales = log_weights.exp(), log_scales.exp()
        low, high = (means - REACH * scales).amin(-1), (means + REACH * scales).amax(-1)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            below = (weights * torch.special.ndtr((middle[..., None] - means) / scales)).sum(-1)
            low, high = torch.where(below < uniform, middle, low), torch.where(below < uniform, high, middle)
        return (low + high) / 2

    def mean(self, parameters: Float[Tensor, "*B P"]) -> Float[Tensor, "*B C"]:
        log_weights, means, _ = self._parts(parameters)
        return (log_weights.exp() * means).sum(-1)

    def quantile(self, parameters: Float[Tensor, "*B P"], level: float) -> Float[Tensor, "*B C"]:
        return self.sample(parameters, torch.full_like(self.mean(parameters), level))

    def _parts(self, parameters: Tensor) -> tuple[Tensor, ...]:
        """Log-weights, means, log standard deviations: each (*B, C, k)."""
        return parameters.unflatten(-1, (-1, 3, self.components)).unbind(-2)


def reference(
    y: float, weights: Sequence[float], means: Sequence[float], scales: Sequence[float]
) -> tuple[float, float]:
    """Density (1) and distribution function (2) of one channel."""
    density = mass = 0.0
    for w, m, s in zip(weights, means, scales, strict=True):
        z = (y - m) / s
        density += w * math.exp(-0.5 * z * z) / (s * math.sqrt(2 * math.pi))
        mass += w * 0.5 * math.erfc(-z / math.sqrt(2))
    return density, mass
