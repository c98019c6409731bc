"""Conformal intervals around any forecast: quantiles of the errors that it made on held-out windows.

Paper: "Conformal prediction interval for dynamic time-series" (2020, 2010.09107) and split conformal prediction (Vovk,
Gammerman and Shafer, 2005): with n held-out errors of a step, the interval from the floor((n+1) a/2)-th smallest to the
ceil((n+1)(1-a/2))-th holds the next value with a probability of at least 1 - a, were the errors exchangeable.

Errors are taken for each step of the horizon, over all series and channels, in units of the series. Windows that follow
each other share targets, and series drift: the probability is then approximate (`metrics.coverage` on later windows).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.windows import WindowModel, WindowSet

BATCH = 256
MOST = 200_000
"""Errors kept of each step; windows are thinned out beyond that."""


@torch.no_grad()
def errors(model: WindowModel, windows: WindowSet) -> Float[Tensor, "N H"]:
    """Held-out errors of each step, sorted; windows that lack a target are left out."""
    step = math.ceil(len(windows) * model.shape.channels / MOST) or 1
    found = []
    for window in windows.every(step).batches(BATCH):
        assert window.target is not None
        error = (window.target - model.point(window)).transpose(1, 2).flatten(0, 1)
        found.append(error[~error.isnan().any(1)])
    joined = torch.cat(found) if found else torch.zeros(0, model.shape.horizon)
    return joined.sort(dim=0).values


def quantile(sorted_errors: Float[Tensor, "N H"], level: float) -> Float[Tensor, "H"]:
    """The conformal quantile of the error at a level: outwards rounded, on either side of the median."""
    count = len(sorted_errors)
    if count == 0:
        raise ValueError("intervals need held-out windows to take errors from: series of more rows, or a shorter h")
    rank = math.ceil((count + 1) * level) if level >= 0.5 else math.floor((count + 1) * level)
    return sorted_errors[min(max(rank, 1), count) - 1]


def reference(errors_of_step: list[float], alpha: float) -> tuple[float, float]:
    """The interval of one step, by the definition."""
    ordered = sorted(errors_of_step)
    n = len(ordered)
    low, high = math.floor((n + 1) * alpha / 2), math.ceil((n + 1) * (1 - alpha / 2))
    return ordered[max(low, 1) - 1], ordered[min(high, n) - 1]
