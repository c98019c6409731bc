"""Regression in context: pairs of points and noisy values of a linear function that is new in every row.

What Can Transformers Learn In-Context? A Case Study of Simple Function Classes (Garg et al., 2022, arXiv 2208.01066).

    w ~ N(0, I / d);  x_i ~ N(0, I);  y_i = w . x_i + s e_i                                            (1)
    row:  x_1 (d numbers), y_1, x_2, y_2, ...;  every number is predicted from those before it
    given n pairs, y_{n+1} ~ N(m_n . x, s^2 + x' V_n x),  V_n = (d I + X'X / s^2)^-1,  m_n = V_n X'y / s^2   (2)

(2) is Bayesian linear regression, which nothing beats. `optimal_nats` is its mean over the held-out batches, points
included (they cost ln(2 pi e) / 2 each); `chance_nats` is that of the prior alone, which learns nothing from the row.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import numpy as np
import torch
from numpy.typing import NDArray

from runnel.data._generated import Generated, need
from runnel.types import Batch

PAPERS: dict[str, str] = {}


@dataclass(frozen=True)
class Config:
    """dims: d. noise: s."""

    dims: int = 1
    noise: float = 0.1
    valid_batches: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.dims <= 64:
            raise ValueError(f"dims must be in [1, 64]; got {self.dims}")
        if not 0 < self.noise < float("inf"):
            raise ValueError(f"noise must be positive and finite; got {self.noise}")


class Source(Generated):
    """Batches of values (B, T, 1) float32. length: T, at least dims + 1."""

    def __init__(self, config: Config, length: int, batch_size: int, seed: int = 0) -> None:
        need("in_context_regression", length, config.dims + 1)
        super().__init__(config, length, batch_size, seed)
        self.vocab_size = 0  # the items are values
        rows = np.concatenate([_whole(batch) for batch in self.valid()])
        best, prior = (bayes_nats(rows, config.dims, config.noise, learns)[:, 1:] for learns in (True, False))
        self.facts = {"optimal_nats": float(best.mean()), "chance_nats": float(prior.mean())}

    def draw_batch(self, rng: np.random.Generator) -> Batch:
        dims, rows = self.config.dims, self.batch_size
        pairs = -(-(self.length + 1) // (dims + 1))
        weights = rng.standard_normal((rows, 1, dims)) * dims**-0.5
        points = rng.standard_normal((rows, pairs, dims))
        noise = self.config.noise * rng.standard_normal((rows, pairs, 1))
        values = (points * weights).sum(2, keepdims=True) + noise
        numbers = np.concatenate([points, values], axis=2).reshape(rows, -1)[:, : self.length + 1]
        items = torch.from_numpy(numbers).float()[:, :, None]
        return Batch(items[:, :-1].contiguous(), items[:, 1:].contiguous())


def bayes_nats(rows: NDArray[np.float64], dims: int, noise: float, learns: bool) -> NDArray[np.float64]:
    """(N, T) surprise of each number by (2). learns: else the pairs of the row are not used, only the prior."""
    precision = np.broadcast_to(np.eye(dims) * dims, (len(rows), dims, dims)).copy()
    moment = np.zeros((len(rows), dims, 1))
    nats = _gaussian(rows, 0.0, 1.0)
    for at in range(dims, rows.shape[1], dims + 1):
        x, y = rows[:, at - dims : at, None], rows[:, at]
        spread = np.linalg.solve(precision, np.concatenate([x, moment], axis=2))  # V x and m
        variance = noise**2 + (x[:, :, 0] * spread[:, :, 0]).sum(1)
        nats[:, at] = _gaussian(y, (x[:, :, 0] * spread[:, :, 1]).sum(1), variance)
        if learns:
            precision += x @ x.transpose(0, 2, 1) / noise**2
            moment += x * y[:, None, None] / noise**2
    return nats


def _gaussian(value: NDArray[np.float64], mean: object, variance: object) -> NDArray[np.float64]:
    return np.asarray(0.5 * (np.log(2 * pi * np.asarray(variance)) + (value - np.asarray(mean)) ** 2 / variance))


def _whole(batch: Batch) -> NDArray[np.float64]:
    return torch.cat([batch.inputs, batch.targets[:, -1:]], dim=1)[:, :, 0].double().numpy()
