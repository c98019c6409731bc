"""A piecewise stationary source: the stated optimum is the exact forecast, by enumeration of every change."""

from __future__ import annotations

from itertools import pairwise, product
from math import lgamma, log

import numpy as np
import pytest

from runnel.data.piecewise_stationary import Config, Source, surprise


def marginal(symbols: list[int], kinds: int, hazard: float, concentration: float) -> float:
    """Probability of a row, summed over every set of places where the law may have changed."""
    total = 0.0
    for changes in product((0, 1), repeat=len(symbols) - 1):
        p = np.prod([hazard if change else 1 - hazard for change in changes]) if changes else 1.0
        starts = [0, *(place + 1 for place, change in enumerate(changes) if change), len(symbols)]
        for start, stop in pairwise(starts):
            counts = np.bincount(symbols[start:stop], minlength=kinds)
            logs = lgamma(concentration * kinds) - lgamma(concentration * kinds + stop - start)
            logs += sum(lgamma(concentration + count) - lgamma(concentration) for count in counts)
            p *= np.exp(logs)
        total += float(p)
    return total


def test_the_forecast_is_exact() -> None:
    for row in ([0, 1, 1, 0, 2, 2, 2], [2, 2, 2, 2, 0, 0, 0]):
        nats = surprise(np.array([row]), kinds=3, hazard=0.2, concentration=0.4)
        assert nats.sum() == pytest.approx(-log(marginal(row, 3, 0.2, 0.4)), abs=1e-12)


def test_nothing_that_does_not_know_the_hazard_does_better() -> None:
    config = Config(symbols=3, hazard=0.1, concentration=0.3)
    source = Source(config, length=100, batch_size=200, seed=2)
    rows = np.concatenate([batch.inputs.numpy() for batch in source.valid()])
    scores = {hazard: surprise(rows, 3, hazard, 0.3).mean() for hazard in (0.02, 0.1, 0.4)}
    assert min(scores, key=lambda hazard: scores[hazard]) == 0.1
    assert source.facts["optimal_nats"] < source.facts["stationary_nats"] < source.facts["chance_nats"]


@pytest.mark.parametrize("hazard", [0.05, 0.4])
def test_laws_change_as_often_as_stated(hazard: float) -> None:
    """Two draws from one Dirichlet(a) law agree with probability (a + 1) / (a V + 1), from two laws with 1 / V."""
    source = Source(Config(symbols=4, hazard=hazard, concentration=0.2), length=100, batch_size=500)
    items = source.batch(0).inputs
    agree = float((items[:, 1:] == items[:, :-1]).double().mean())
    assert agree == pytest.approx((1 - hazard) * 1.2 / 1.8 + hazard / 4, abs=0.015)
