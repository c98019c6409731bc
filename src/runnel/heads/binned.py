"""Binned: a value as a token, the bin that it falls into; any law that a histogram can draw.

Paper: "Chronos: Learning the Language of Time Series" (2024, 2403.07815), section 3.1: uniform bins of scaled values
and a categorical law over them.

    bin of y = floor((y - low) / width), low = -limit, width = 2 limit / V             (1)
    p(y) = softmax(logits)_bin / width                                                 (2)

| code | paper |
|---|---|
| bins, limit | B; c_1 = -limit, c_B = limit |

The P = C V parameters are log-probabilities of bins. Inside a bin the density is flat, which gives quantiles between
the edges. Values beyond the limits count as the first or last bin.

Deviates: the paper forecasts the centres of bins; here a draw may lie anywhere in its bin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import log_softmax

from runnel.heads import Histogram
from runnel.mixer import linear

PAPERS = {"Chronos: Learning the Language of Time Series": "2403.07815"}


@dataclass(frozen=True)
class Config:
    """bins: V. limit: the bins lie in [-limit, limit]."""

    bins: int = 100
    limit: float = 5.0

    def __post_init__(self) -> None:
        if self.bins < 2 or not 0 < self.limit < math.inf:
            raise ValueError(f"binned needs at least 2 bins and a positive limit; got {self.bins} and {self.limit}")


class Binned(Histogram):
    def __init__(self, d_model: int, outcomes: int, config: Config) -> None:
        super().__init__(config.bins, config.limit)
        self.logits = linear(d_model, config.bins * outcomes, bias=True)
        with torch.no_grad():  # starts near the standard normal law
            self.logits.bias.view(outcomes, config.bins)[:] = -0.5 * self.centres(self.logits.bias) ** 2

    def forward(
        self, hidden: Float[Tensor, "*B D"], positions: Int[Tensor, "*B"] | None = None
    ) -> Float[Tensor, "*B P"]:
        return log_softmax(self._by_channel(self.logits(hidden)), -1).flatten(-2)


def reference(logits: Sequence[float], limit: float, y: float) -> tuple[float, float]:
    """Density of y and mass below it, bin by bin."""
    total, width = sum(map(math.exp, logits)), 2 * limit / len(logits)
    mass = 0.0
    for index, logit in enumerate(logits):
        share, low = math.exp(logit) / total, -limit + index * width
        if low <= y < low + width:
            return share / width, mass + share * (y - low) / width
        mass += share
    raise ValueError(f"y must lie in [-{limit}, {limit}); got {y}")
