"""Regression in context: the stated optimum is Bayes' forecast, which knowing less does not reach."""

from __future__ import annotations

import numpy as np
import pytest

from runnel.data.in_context_regression import Config, Source, bayes_nats


def joint(points: np.ndarray, values: np.ndarray, noise: float) -> float:
    """-ln p(values | points) with the weights integrated out: one Gaussian over all values."""
    covariance = points @ points.T / points.shape[1] + noise**2 * np.eye(len(values))
    _, log_det = np.linalg.slogdet(2 * np.pi * covariance)
    return float(0.5 * (log_det + values @ np.linalg.solve(covariance, values)))


@pytest.mark.parametrize("dims", [1, 3])
def test_the_forecast_is_exact(dims: int) -> None:
    rng = np.random.default_rng(0)
    points, values = rng.standard_normal((6, dims)), rng.standard_normal(6)
    row = np.concatenate([points, values[:, None]], axis=1).reshape(1, -1)
    nats = bayes_nats(row, dims, 0.3, learns=True)[0, dims :: dims + 1]
    assert nats.sum() == pytest.approx(joint(points, values, 0.3), abs=1e-10)


@pytest.mark.parametrize("dims", [1, 2])
def test_rows_follow_the_law_that_the_optimum_assumes(dims: int) -> None:
    config = Config(dims=dims, noise=0.2)
    source = Source(config, length=30, batch_size=2000, seed=1)
    batch = source.batch(0)
    rows = np.concatenate([batch.inputs[:, :, 0].double().numpy(), batch.targets[:, -1:, 0].double().numpy()], axis=1)
    assert rows.shape == (2000, 31)
    matched = bayes_nats(rows, dims, 0.2, learns=True).mean()
    assert matched < min(bayes_nats(rows, dims, noise, learns=True).mean() for noise in (0.15, 0.27))
    assert source.facts["optimal_nats"] == pytest.approx(bayes_nats(rows, dims, 0.2, True)[:, 1:].mean(), abs=0.03)
    assert source.facts["chance_nats"] > source.facts["optimal_nats"] + 0.2
