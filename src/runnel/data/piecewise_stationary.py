"""A piecewise stationary source: symbols from a law that is drawn anew at random times; the best forecast is exact.

At every step, with probability h, a new law is drawn from a symmetric Dirichlet; nothing tells when. The best possible
forecast weighs all hypotheses of when the last change was (Adams and MacKay, Bayesian Online Changepoint Detection,
2007, arXiv 0710.3742):

    w_t(0) = h,  w_t(r) = (1 - h) w_{t-1}(r - 1 | x_1 .. x_{t-1})       weight of a segment of r symbols   (1)
    p(x | r) = (count_r(x) + a) / (r + a V)                                                              (2)
    p(x_t) = sum_r w_t(r) p(x_t | r),   w_t(r | x_t) = w_t(r) p(x_t | r) / p(x_t)                          (3)

`optimal_nats` is the mean of -ln p(x_t) over the held-out batches, for targets x_2 .. x_{T+1}: what no model can beat
in the mean. `stationary_nats` is what one Dirichlet over the whole past reaches, which never notices a change.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray

from runnel.data._generated import Generated, tokens
from runnel.types import Batch

PAPERS: dict[str, str] = {}


@dataclass(frozen=True)
class Config:
    """symbols: V. hazard: h, chance of a new law at a step. concentration: a, small laws are predictable."""

    symbols: int = 4
    hazard: float = 0.05
    concentration: float = 0.2
    valid_batches: int = 2

    def __post_init__(self) -> None:
        if self.symbols < 2:
            raise ValueError(f"symbols must be at least 2; got {self.symbols}")
        if not 0 < self.hazard < 1:
            raise ValueError(f"hazard must be in (0, 1); got {self.hazard}")
        if not 0.01 <= self.concentration <= 1000:
            raise ValueError(f"concentration must be in [0.01, 1000]; got {self.concentration}")


class Source(Generated):
    """Batches of symbols."""

    def __init__(self, config: Config, length: int, batch_size: int, seed: int = 0) -> None:
        super().__init__(config, length, batch_size, seed)
        self.vocab_size = config.symbols
        held_out = np.concatenate([_whole(batch) for batch in self.valid()])
        best = surprise(held_out, config.symbols, config.hazard, config.concentration)
        blind = surprise(held_out, config.symbols, 0.0, config.concentration)
        self.facts = {
            "optimal_nats": float(best[:, 1:].mean()),
            "stationary_nats": float(blind[:, 1:].mean()),
            "chance_nats": log(config.symbols),
        }

    def draw_batch(self, rng: np.random.Generator) -> Batch:
        config, rows = self.config, np.arange(self.batch_size)
        changes = rng.random((self.batch_size, self.length + 1)) < config.hazard
        laws = rng.dirichlet([config.concentration] * config.symbols, size=(self.length + 2, self.batch_size))
        which = np.cumsum(changes, axis=1)
        below = np.cumsum(laws, axis=2)[which, rows[:, None]]  # (B, T + 1, V)
        drawn = rng.random((self.batch_size, self.length + 1, 1))
        symbols = (drawn >= below[:, :, :-1]).sum(2)
        return tokens(symbols[:, :-1], symbols[:, 1:])


def surprise(symbols: NDArray[np.int64], kinds: int, hazard: float, concentration: float) -> NDArray[np.float64]:
    """(N, T) nats of each symbol given those before it, by (1) to (3). Time and memory: T^2 a row at most."""
    rows, length = symbols.shape
    weights, counts = np.ones((rows, 1)), np.zeros((rows, 1, kinds))
    nats = np.empty((rows, length))
    for place in range(length):
        x = symbols[:, place]
        seen = np.take_along_axis(counts, x[:, None, None], axis=2)[:, :, 0]
        joint = weights * (seen + concentration) / (counts.sum(2) + concentration * kinds)
        total = joint.sum(1, keepdims=True)
        nats[:, place] = -np.log(total[:, 0])
        counts[np.arange(rows), :, x] += 1
        weights = np.concatenate([np.full((rows, 1), hazard), (1 - hazard) * joint / total], axis=1)
        counts = np.concatenate([np.zeros((rows, 1, kinds)), counts], axis=1)
    return nats


def _whole(batch: Batch) -> NDArray[np.int64]:
    return np.concatenate([batch.inputs.numpy(), batch.targets.numpy()[:, -1:]], axis=1)
