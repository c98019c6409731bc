"""Conformal intervals around any forecast: quantiles of the errors that it made on held-out windows.

Paper: "Conformal prediction interval for dynamic time-series" (2020, 2010.09107) and split conformal prediction (Vovk,
Gammerman and Shafer, 2005): with n held-out errors of a step, the interval from the floor((n+1) a/2)-th smallest to the
ceil((n+1)(1-a/2))-th holds the next value with a probability of at least 1 - a, were the errors exchangeable.

    error = (y - mean) / spread;  spread = 1 of points, the width of a head's middle 80%   (1)

so that intervals around a head's law are wide where the law is, and on the whole as wide as its errors were (locally
weighted, "Distribution-Free Predictive Inference for Regression", 2016, 1604.04173).

Errors are taken for each step of the horizon, over all series and channels, in units of the series. Windows that follow
each other share targets, and series drift: the probability is then approximate (`metrics.coverage` on later windows).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.windows import Law, WindowModel, WindowSet

BATCH = 256
MOST = 200_000
"""Errors kept of each step; windows are thinned out beyond that."""
MIDDLE = (0.1, 0.9)
NARROWEST = 1e-6


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Errors (1), a row a window and channel: `rows` as they came, `ordered` by size at each step."""

    rows: Float[Tensor, "N H"]

    @cached_property
    def ordered(self) -> Float[Tensor, "N H"]:
        return self.rows.sort(dim=0).values

    def quantile(self, level: float) -> Float[Tensor, "H"]:
        """The conformal quantile of the error at a level: outwards rounded, on either side of the median."""
        count = len(self.some())
        rank = math.ceil((count + 1) * level) if level >= 0.5 else math.floor((count + 1) * level)
        return self.ordered[min(max(rank, 1), count) - 1]

    def some(self) -> Float[Tensor, "N H"]:
        """The rows. ValueError when there are none."""
        if len(self.rows) == 0:
            needed = "series of more rows, or a shorter h"
            raise ValueError(f"intervals and draws need held-out windows to take errors from: {needed}")
        return self.rows


@torch.no_grad()
def errors(model: WindowModel, windows: WindowSet) -> HeldOut:
    """The errors on windows; those that lack a target are left out."""
    step = math.ceil(len(windows) * model.shape.channels / MOST) or 1
    found = [torch.zeros(0, model.shape.horizon)]
    for window in windows.every(step).batches(BATCH):
        assert window.target is not None
        law = model.law(window)
        error = ((window.target - law.mean()) / spread(law)).transpose(1, 2).flatten(0, 1)
        found.append(error[~error.isnan().any(1)])
    return HeldOut(torch.cat(found))


def spread(law: Law) -> Float[Tensor, "B H C"]:
    """What errors are measured in (1)."""
    if law.head is None:
        return torch.ones_like(law.mean())
    low, high = (law.quantile(level) for level in MIDDLE)
    return (high - low).clamp(min=NARROWEST)


def reference(errors_of_step: list[float], alpha: float) -> tuple[float, float]:
    """The interval of one step, by the definition."""
    ordered = sorted(errors_of_step)
    n = len(ordered)
    low, high = math.floor((n + 1) * alpha / 2), math.ceil((n + 1) * (1 - alpha / 2))
    return ordered[max(low, 1) - 1], ordered[min(high, n) - 1]
