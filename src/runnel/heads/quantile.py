"""Quantile: the quantiles of every channel at fixed levels, learned by the pinball loss, and never crossing.

Papers: "Regression Quantiles" (Koenker and Bassett, 1978), eq. (1); the loss of all levels together is the weighted
quantile loss of "A Multi-Horizon Quantile Recurrent Forecaster" (2017, 1711.11053).

    q_1 = a_1,  q_{i+1} = q_i + softplus(a_{i+1})                                      (1)
    score = -2/Q sum_i max(u_i (y - q_i), (u_i - 1) (y - q_i))                         (2)

| code | paper |
|---|---|
| levels | u_i, Q of them |

The P = C Q parameters are the quantiles themselves. Between levels they are joined by lines, and beyond the outermost
ones the law is taken to end: draws never lie outside. There is no density, so `score` (2) stands for it in training;
-score tends to the CRPS as the levels grow dense.

Deviates: (1) keeps quantiles in order; the papers let them cross.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import softplus

from runnel.head import Head
from runnel.mixer import linear

PAPERS = {"A Multi-Horizon Quantile Recurrent Forecaster": "1711.11053"}

LEVELS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975, 0.99)


@dataclass(frozen=True)
class Config:
    """levels: rising, in (0, 1)."""

    levels: tuple[float, ...] = LEVELS

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.levels, self.levels[1:], strict=False))
        if len(self.levels) < 2 or not rising or not 0 < self.levels[0] <= self.levels[-1] < 1:
            raise ValueError(f"levels of quantile must be at least two, rising, in (0, 1); got {self.levels}")


class Quantile(Head):
    def __init__(self, d_model: int, outcomes: int, config: Config) -> None:
        super().__init__()
        self.count = len(config.levels)
        self.register_buffer("levels", torch.tensor(config.levels), persistent=False)
        self.parameters_of = linear(d_model, self.count * outcomes, bias=True)
        with torch.no_grad():  # starts as a law of width of about one
            self.parameters_of.bias.view(outcomes, self.count)[:, 0] = -1.0
            self.parameters_of.bias.view(outcomes, self.count)[:, 1:] = -2.0

    def forward(
        self, hidden: Float[Tensor, "*B D"], positions: Int[Tensor, "*B"] | None = None
    ) -> Float[Tensor, "*B P"]:
        free = self._by_channel(self.parameters_of(hidden))
        return torch.cat([free[..., :1], softplus(free[..., 1:])], -1).cumsum(-1).flatten(-2)  # eq. (1)

    def log_prob(self, parameters: Float[Tensor, "*B P"], target: Float[Tensor, "*B C"]) -> Float[Tensor, "*B"]:
        raise ValueError("quantiles have no density: use their score")

    def score(self, parameters: Float[Tensor, "*B P"], target: Float[Tensor, "*B C"]) -> Float[Tensor, "*B"]:
        """Equation (2), summed over channels."""
        levels, over = self._levels(parameters), target[..., None] - self._by_channel(parameters)
        return -2 * torch.maximum(levels * over, (levels - 1) * over).mean(-1).sum(-1)

    def sample(self, parameters: Float[Tensor, "*B P"], uniform: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        """By inversion."""
        levels, q = self._levels(parameters), self._by_channel(parameters)
        place = uniform.to(levels).clamp(levels[0], levels[-1]).contiguous()
        right = torch.searchsorted(levels, place).clamp(1, self.count - 1)
        low, high = (q.gather(-1, i[..., None])[..., 0] for i in (right - 1, right))
        share = (place - levels[right - 1]) / (levels[right] - levels[right - 1])
        return low + share * (high - low)

    def mean(self, parameters: Float[Tensor, "*B P"]) -> Float[Tensor, "*B C"]:
        """Of the law that the lines between quantiles are; what lies beyond the outermost counts as these."""
        levels, q = self._levels(parameters), self._by_channel(parameters)
        middle = ((q[..., 1:] + q[..., :-1]) / 2 * (levels[1:] - levels[:-1])).sum(-1)
        return middle + q[..., 0] * levels[0] + q[..., -1] * (1 - levels[-1])

    def quantile(self, parameters: Float[Tensor, "*B P"], level: float) -> Float[Tensor, "*B C"]:
        return self.sample(parameters, torch.full_like(self.mean(parameters), level))

    def _levels(self, like: Tensor) -> Float[Tensor, "Q"]:
        levels = self.levels
        assert isinstance(levels, Tensor)
        return levels.to(like.dtype)

    def _by_channel(self, parameters: Tensor) -> Tensor:
        return parameters.unflatten(-1, (-1, self.count))


def reference(free: Sequence[float], levels: Sequence[float], target: float) -> tuple[list[float], float]:
    """Quantiles and score of one channel, by the equations."""
    quantiles = [free[0]]
    for step in free[1:]:
        quantiles.append(quantiles[-1] + float(softplus(torch.tensor(step, dtype=torch.float64))))
    losses = [max(u * (target - q), (u - 1) * (target - q)) for u, q in zip(levels, quantiles, strict=True)]
    return quantiles, -2 * sum(losses) / len(losses)
