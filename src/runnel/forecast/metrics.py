"""What a forecast is worth. Missing targets (NaN) do not count.

    MASE  = MAE / (mean |y_t - y_{t-m}| over the history)                              (1)
    RMSSE = sqrt(MSE / (mean (y_t - y_{t-m})^2 over the history))                      (2)
    WQL   = 2 sum over levels and values of pinball(q) / (levels * sum |y|)            (3)
    skill = 1 - geometric mean over series of error / error of the baseline            (4)
    DM    = mean(d) / sqrt(V / n), d the difference of losses, V its long-run variance (5)

(1) and (2): Hyndman and Koehler, 2006; the M5 competition. (3) tends to the CRPS over sum |y| as levels grow dense.
(5): Diebold and Mariano, 1995, with Bartlett weights over the overlap of forecasts (Newey and West, 1987).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

Array = NDArray[np.float64]


def mse(y: Float[Array, "..."], forecast: Float[Array, "..."]) -> float:
    return float(np.nanmean((y - forecast) ** 2))


def mae(y: Float[Array, "..."], forecast: Float[Array, "..."]) -> float:
    return float(np.nanmean(np.abs(y - forecast)))


def mase(y: Float[Array, "H"], forecast: Float[Array, "H"], history: Float[Array, "T"], season: int = 1) -> float:
    """Equation (1). NaN where the history has no change over a season."""
    scale = np.nanmean(np.abs(_changes(history, season)))
    return mae(y, forecast) / float(scale) if scale > 0 else math.nan


def rmsse(y: Float[Array, "H"], forecast: Float[Array, "H"], history: Float[Array, "T"], season: int = 1) -> float:
    """Equation (2). NaN where the history has no change over a season."""
    scale = np.nanmean(_changes(history, season) ** 2)
    return math.sqrt(mse(y, forecast) / float(scale)) if scale > 0 else math.nan


def pinball(y: Float[Array, "..."], quantile: Float[Array, "..."], level: float) -> Array:
    """The loss that the quantile of that level makes smallest."""
    return np.maximum(level * (y - quantile), (level - 1) * (y - quantile))


def wql(y: Float[Array, "..."], quantiles: Float[Array, "Q ..."], levels: Sequence[float]) -> float:
    """Equation (3). NaN where all targets are zero."""
    total = sum(float(np.nansum(pinball(y, q, level))) for q, level in zip(quantiles, levels, strict=True))
    size = float(np.nansum(np.abs(y)))
    return 2 * total / (len(levels) * size) if size > 0 else math.nan


def crps_of_samples(y: Float[Array, "..."], samples: Float[Array, "N ..."]) -> float:
    """The mean of E|X - y| - E|X - X'| / 2 over draws X, in the units of y; the spread without its bias."""
    n = samples.shape[0]
    order = np.sort(samples, axis=0)
    ranks = (2 * np.arange(1, n + 1) - n - 1).reshape(-1, *[1] * y.ndim)
    spread = (ranks * order).sum(0) / (n * (n - 1) / 2)  # the mean |X - X'| over pairs
    return float(np.nanmean(np.abs(samples - y).mean(0) - spread / 2))


def coverage(y: Float[Array, "..."], low: Float[Array, "..."], high: Float[Array, "..."]) -> float:
    """The share of known targets inside [low, high]."""
    known = ~np.isnan(y)
    return float(((low <= y) & (y <= high))[known].mean())


def skill(errors: Sequence[float], baseline: Sequence[float]) -> float:
    """Equation (4): 0 is as good as the baseline, 1 is perfect. Series with an error of zero or NaN are left out."""
    ratios = [e / b for e, b in zip(errors, baseline, strict=True) if e > 0 and b > 0]
    return 1 - math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else math.nan


@dataclass(frozen=True)
class Comparison:
    """Equation (5). difference: mean loss of the first less that of the second. p: two-sided, against equal losses."""

    difference: float
    statistic: float
    p: float


def diebold_mariano(first: Float[Array, "n"], second: Float[Array, "n"], overlap: int = 1) -> Comparison:
    """Compare the losses of two forecasters on the same windows, in order of time.

    overlap: how many windows on either side share targets with a window (the horizon, where the stride is 1).
    """
    d = np.asarray(first, float) - np.asarray(second, float)
    if d.ndim != 1 or len(d) < 2 or not np.isfinite(d).all():
        raise ValueError(f"losses must be at least two finite numbers, one a window; got {d.shape}")
    n, centred = len(d), d - d.mean()
    variance = float(centred @ centred) / n
    for lag in range(1, min(overlap, n - 1)):
        variance += 2 * (1 - lag / overlap) * float(centred[lag:] @ centred[:-lag]) / n
    if variance <= 0:
        return Comparison(float(d.mean()), 0.0, 1.0)
    statistic = float(d.mean()) / math.sqrt(variance / n)
    return Comparison(float(d.mean()), statistic, math.erfc(abs(statistic) / math.sqrt(2)))


def _changes(history: Float[Array, "T"], season: int) -> Array:
    """Differences over a season; over one step where the history is not longer than that."""
    lag = season if len(history) > season else 1
    return history[lag:] - history[:-lag] if len(history) > 1 else np.zeros(1)
