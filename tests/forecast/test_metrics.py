"""Metrics against their definitions, by loops and by known answers."""

import math

import numpy as np
import pytest

from runnel.forecast import metrics

RNG = np.random.default_rng(0)


def test_scaled_errors_by_hand():
    history, y, forecast = np.array([1.0, 3, 2, 5]), np.array([4.0, 6]), np.array([5.0, 3])
    assert metrics.mase(y, forecast, history) == pytest.approx(2 / 2)
    assert metrics.rmsse(y, forecast, history) == pytest.approx(math.sqrt(5 / (14 / 3)))
    assert metrics.mase(y, forecast, history, season=2) == pytest.approx(2 / 1.5)
    assert math.isnan(metrics.mase(y, forecast, np.ones(4)))


def test_missing_targets_do_not_count():
    y, forecast = np.array([1.0, np.nan, 3.0]), np.array([2.0, 9.0, 3.0])
    assert metrics.mse(y, forecast) == 0.5 and metrics.mae(y, forecast) == 0.5
    assert metrics.coverage(y, forecast - 0.5, forecast + 0.5) == 0.5


def test_dense_quantiles_give_the_crps():
    draws, y = RNG.normal(size=(4001, 1)), np.array([0.7])
    levels = np.linspace(0.001, 0.999, 999)
    quantiles = np.quantile(draws, levels, axis=0)
    exact = 0.7 * (2 * 0.758036 - 1) + 2 * math.exp(-0.245) / math.sqrt(2 * math.pi) - 1 / math.sqrt(math.pi)
    assert metrics.crps_of_samples(y, draws) == pytest.approx(exact, abs=0.02)
    assert metrics.wql(y, quantiles, levels) * 0.7 == pytest.approx(metrics.crps_of_samples(y, draws), abs=5e-3)


def test_the_spread_of_samples_is_that_over_all_pairs():
    draws, y = RNG.normal(size=(7, 3)), np.zeros(3)
    pairs = [np.abs(draws[i] - draws[j]) for i in range(7) for j in range(i)]
    expected = (np.abs(draws).mean(0) - np.mean(pairs, axis=0) / 2).mean()
    assert metrics.crps_of_samples(y, draws) == pytest.approx(expected, rel=1e-12)


def test_skill_is_a_geometric_mean():
    assert metrics.skill([1.0, 4.0], [2.0, 2.0]) == pytest.approx(0.0)
    assert metrics.skill([1.0, 1.0, 0.0], [2.0, 2.0, 1.0]) == pytest.approx(0.5)


def test_diebold_mariano_holds_its_level_and_finds_a_difference():
    rejected = 0
    for _ in range(300):
        noise = RNG.normal(size=407)
        smooth = np.convolve(noise, np.ones(8) / 8, "valid")  # overlapping forecasts: losses that depend on each other
        rejected += metrics.diebold_mariano(smooth, np.zeros(400), overlap=16).p < 0.05
    assert 5 <= rejected <= 40
    found = metrics.diebold_mariano(RNG.normal(0.5, 1, 400), np.zeros(400))
    assert found.difference > 0 and found.p < 1e-6
    assert metrics.diebold_mariano(np.ones(5), np.ones(5)).p == 1.0
    with pytest.raises(ValueError, match="at least two finite numbers"):
        metrics.diebold_mariano(np.array([np.nan, 1]), np.ones(2))
