"""Student-t: a heavy-tailed law per channel, for series with outliers.

Paper: "DeepAR: Probabilistic Forecasting with Autoregressive Recurrent Networks" (2017, 1704.04110) made a learned law
per step common; the Student-t in place of its Gaussian is GluonTS' (2019, 1906.05264).

    log p(y) = log G((v+1)/2) - log G(v/2) - log(pi v)/2 - log s - (v+1)/2 log(1 + z^2/v),  z = (y - m)/s   (1)
    z = sqrt(v) tan a:  P(angle < a) = integral of cos^(v-1) over (-pi/2, a), over that of the whole          (2)

| code | paper |
|---|---|
| mean, log_scale, freedom | m, log s, v = 2 + softplus |

The P = 3C parameters are m, then log s, then v. v lies in (2, 100]: the variance is finite. Quantiles and draws are
bisections of (2), an integral of a smooth function over a bounded range, by Gauss-Legendre quadrature.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import softplus

from runnel.head import Head
from runnel.mixer import linear

PAPERS = {"DeepAR: Probabilistic Forecasting with Autoregressive Recurrent Networks": "1704.04110"}

MOST_FREEDOM = 100.0
NODES, HALVINGS = 40, 40


@dataclass(frozen=True)
class Config:
    """There is nothing to set."""


class StudentT(Head):
    def __init__(self, d_model: int, outcomes: int, config: Config) -> None:
        super().__init__()
        self.parameters_of = linear(d_model, 3 * outcomes, bias=True)
        torch.nn.init.constant_(self.parameters_of.bias[2 * outcomes :], 3.0)

    def forward(
        self, hidden: Float[Tensor, "*B D"], positions: Int[Tensor, "*B"] | None = None
    ) -> Float[Tensor, "*B P"]:
        mean, log_scale, freedom = self.parameters_of(hidden).chunk(3, dim=-1)
        return torch.cat([mean, log_scale, (2 + softplus(freedom)).clamp(max=MOST_FREEDOM)], dim=-1)

    def log_prob(self, parameters: Float[Tensor, "*B P"], target: Float[Tensor, "*B C"]) -> Float[Tensor, "*B"]:
        """Equation (1), summed over channels."""
        mean, log_scale, v = parameters.chunk(3, dim=-1)
        z = (target - mean) * (-log_scale).exp()
        norm = torch.lgamma((v + 1) / 2) - torch.lgamma(v / 2) - 0.5 * (math.pi * v).log() - log_scale
        return (norm - (v + 1) / 2 * (z**2 / v).log1p()).sum(-1)

    def sample(self, parameters: Float[Tensor, "*B P"], uniform: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        """By inversion."""
        mean, log_scale, v = parameters.chunk(3, dim=-1)
        return mean + log_scale.exp() * standard_quantile(uniform, v)

    def mean(self, parameters: Float[Tensor, "*B P"]) -> Float[Tensor, "*B C"]:
        return parameters.chunk(3, dim=-1)[0]

    def quantile(self, parameters: Float[Tensor, "*B P"], level: float) -> Float[Tensor, "*B C"]:
        return self.sample(parameters, torch.full_like(self.mean(parameters), level))


@torch.no_grad()
def standard_quantile(level: Float[Tensor, "*B"], v: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """Where the law of equation (2) has `level` of its mass on the left, by bisection."""
    x, w = np.polynomial.legendre.leggauss(NODES)
    nodes, weights = (torch.as_tensor(n, dtype=torch.float64, device=level.device) for n in ((x + 1) / 2, w / 2))
    upper, power = (level.double() - 0.5).abs(), v.double()[..., None] - 1

    def mass(angle: Tensor) -> Tensor:  # of (0, angle)
        return angle * ((angle[..., None] * nodes).cos() ** power @ weights)

    half = math.sqrt(math.pi) / 2 * (torch.lgamma(v.double() / 2) - torch.lgamma((v.double() + 1) / 2)).exp()
    low, high = torch.zeros_like(upper), torch.full_like(upper, math.pi / 2)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        short = mass(middle) < 2 * upper * half
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return (v.double().sqrt() * torch.tan((low + high) / 2) * torch.sign(level.double() - 0.5)).to(level.dtype)


def reference(y: float, mean: float, scale: float, v: float) -> float:
    """The density of one value, by the formula."""
    z = (y - mean) / scale
    top = math.gamma((v + 1) / 2) * (1 + z * z / v) ** (-(v + 1) / 2)
    return top / (math.gamma(v / 2) * math.sqrt(math.pi * v) * scale)
