"""A stationary autoregressive process of order p: numbers whose best possible forecast is known exactly.

    x_t = a_1 x_{t-1} + ... + a_p x_{t-p} + s e_t,  e_t ~ N(0, 1)                                     (1)

The coefficients come from partial autocorrelations k_1 .. k_p in (-1, 1) by the Durbin-Levinson recursion, which makes
every draw stationary and gives the best predictor and its variance also for the first items of a row:

    a^(m)_i = a^(m-1)_i - k_m a^(m-1)_{m-i}  (i < m),  a^(m)_m = k_m                                  (2)
    v_m = v_{m-1} (1 - k_m^2),  v_p = s^2: variance of x_t given the m items before it                (3)
    best loss with m items seen: ln(2 pi e v_min(m, p)) / 2 nats                                      (4)

(2) and (3): Brockwell and Davis, Time Series: Theory and Methods, section 5.2. Rows start from the stationary law.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import e, log, pi

import numpy as np
import torch
from numpy.typing import NDArray

from runnel.data._generated import Generated
from runnel.data._keyed import TASK, generator
from runnel.types import Batch

PAPERS: dict[str, str] = {}


@dataclass(frozen=True)
class Config:
    """order: p. strength: bound of the partial autocorrelations, in [0, 1). noise: s, standard deviation of a step."""

    order: int = 2
    strength: float = 0.9
    noise: float = 1.0
    valid_batches: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.order <= 64:
            raise ValueError(f"order must be in [1, 64]; got {self.order}")
        if not 0 <= self.strength < 1:
            raise ValueError(f"strength must be in [0, 1); got {self.strength}")
        if not 0 < self.noise < float("inf"):
            raise ValueError(f"noise must be positive and finite; got {self.noise}")


class Source(Generated):
    """Batches of values (B, T, 1) float32. predictors: a^(m) for m = 0 .. p. variances: (p + 1,), v_m."""

    def __init__(self, config: Config, length: int, batch_size: int, seed: int = 0) -> None:
        super().__init__(config, length, batch_size, seed)
        self.vocab_size = 0  # the items are values
        partial = generator(seed, TASK).uniform(-config.strength, config.strength, size=config.order)
        self.predictors, self.variances = levinson(partial, config.noise)
        best = [_gaussian_nats(self.variances[min(seen, config.order)]) for seen in range(1, length + 1)]
        self.facts = {
            "coefficients": self.predictors[-1].tolist(),
            "entropy_rate_nats": _gaussian_nats(self.variances[-1]),
            "optimal_nats": sum(best) / length,
            "chance_nats": _gaussian_nats(self.variances[0]),
        }

    def draw_batch(self, rng: np.random.Generator) -> Batch:
        values = rng.standard_normal((self.batch_size, self.length + 1))
        for place in range(self.length + 1):
            seen = min(place, self.config.order)
            latest_first = values[:, place - seen : place][:, ::-1]
            values[:, place] = latest_first @ self.predictors[seen] + values[:, place] * self.variances[seen] ** 0.5
        rows = torch.from_numpy(values).float()[:, :, None]
        return Batch(rows[:, :-1].contiguous(), rows[:, 1:].contiguous())


def levinson(partial: NDArray[np.float64], noise: float) -> tuple[list[NDArray[np.float64]], NDArray[np.float64]]:
    """(2) and (3). partial: (p,), each in (-1, 1). Returns the p + 1 predictors (latest item first) and variances."""
    predictors = [np.zeros(0)]
    for k in partial:
        last = predictors[-1]
        predictors.append(np.append(last - k * last[::-1], k))
    shrink = np.concatenate([[1.0], np.cumprod(1 - partial**2)])
    return predictors, noise**2 * shrink / shrink[-1]


def _gaussian_nats(variance: float) -> float:
    return 0.5 * log(2 * pi * e * variance)
