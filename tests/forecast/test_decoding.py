"""Direct, block and recursive forecasts: one answer where nothing is left to chance, honest spread where it is."""

import numpy as np
import pandas as pd
import pytest
from forecast.support import frame, wave

from runnel.forecast import Forecaster
from runnel.forecasters import local_ridge, ridge
from runnel.windows import FitConfig

EXACT = ridge.Config(("last",), (0.1,))
LEVEL = local_ridge.Config("none", 0.0, 1.0)
"""May return to the level of the series."""


def autoregression(series=6, rows=600, phi=0.8, seed=0):
    """Series y_t = phi y_{t-1} + noise of size one."""
    noise = np.random.default_rng(seed).normal(size=(series, rows))
    y = np.zeros((series, rows))
    for t in range(1, rows):
        y[:, t] = phi * y[:, t - 1] + noise[:, t]
    ids = [f"s{i}" for i in range(series)]
    return pd.DataFrame({"unique_id": np.repeat(ids, rows), "ds": np.tile(np.arange(rows), series), "y": y.ravel()})


def test_they_agree_on_a_deterministic_process():
    data = frame(noise=0.0)
    found = {
        block: Forecaster(h=12, freq="h", backbone=EXACT, lookback=48, block=block, paths=5).fit(data).predict()
        for block in (None, 4, 1)
    }
    for out in found.values():
        assert np.allclose(out["ridge"], found[None]["ridge"], atol=0.01)
        for id, part in out.groupby("unique_id"):
            assert np.abs(part["ridge"] - wave(id, part["ds"])).max() < 0.02


@pytest.mark.parametrize("block", [1, 2])
def test_spread_that_is_fed_back_grows_as_that_of_the_process(block):
    """Fed-back means or medians would leave the width of a block as it was."""
    f = Forecaster(h=8, freq=1, backbone=LEVEL, lookback=4, block=block, paths=400).fit(autoregression())
    out = f.predict(level=[90])
    width = (out["local_ridge-hi-90"] - out["local_ridge-lo-90"]).to_numpy().reshape(6, 8).mean(0)
    expected = [2 * 1.645 * np.sqrt((1 - 0.64**k) / (1 - 0.64)) for k in range(1, 9)]
    assert width == pytest.approx(expected, rel=0.15)


def test_means_are_those_of_the_process():
    data = autoregression()
    out = Forecaster(h=6, freq=1, backbone=LEVEL, lookback=4, block=1, paths=2000).fit(data).predict()
    last = data.groupby("unique_id")["y"].last().to_numpy()
    expected = last[:, None] * 0.8 ** np.arange(1, 7)
    assert np.abs(out["local_ridge"].to_numpy().reshape(6, 6) - expected).mean() < 0.2


def test_intervals_hold_what_they_say_on_held_out_windows():
    data = autoregression(series=20)
    quick = FitConfig(steps=300, lr=1e-2, valid_every=50)
    ways = {
        "direct": Forecaster(h=8, freq=1, backbone=LEVEL, lookback=8),
        "recursive": Forecaster(h=8, freq=1, backbone=LEVEL, lookback=8, block=1, paths=200),
        "law": Forecaster(h=8, freq=1, backbone="dlinear", head="gaussian", lookback=8, fit=quick),
        "wrapped": Forecaster(
            h=8, freq=1, backbone="dlinear", head="gaussian", intervals="conformal", lookback=8, fit=quick
        ),
    }
    for way, f in ways.items():
        out = f.cross_validation(data, n_windows=10, level=[90])
        covered = ((out[f"{f.name}-lo-90"] <= out["y"]) & (out["y"] <= out[f"{f.name}-hi-90"])).mean()
        assert 0.87 <= covered <= 0.93, way


def test_conformal_intervals_around_a_law_mend_it():
    """Hardly trained, the law is far too wide; around it, errors are as large as they are."""
    hardly = FitConfig(steps=2, valid_every=1)
    found = {}
    for intervals in ("law", "conformal"):
        f = Forecaster(4, "h", "dlinear", head="gaussian", lookback=24, fit=hardly, intervals=intervals)
        out = f.cross_validation(frame(rows=400), n_windows=8, level=[50])
        found[intervals] = ((out["dlinear-lo-50"] <= out["y"]) & (out["y"] <= out["dlinear-hi-50"])).mean()
    assert abs(found["conformal"] - 0.5) < 0.1 < abs(found["law"] - 0.5)


def test_a_series_is_forecast_the_same_in_any_company():
    f = Forecaster(h=6, freq="h", block=2, paths=20, lookback=24).fit(frame())
    together = f.predict(level=[80])
    alone = f.predict(frame().query("unique_id == 's1'"), level=[80])
    expected = together[together["unique_id"] == "s1"].iloc[:, 2:].to_numpy()
    assert np.allclose(alone.iloc[:, 2:].to_numpy(), expected, rtol=1e-5)


def test_samples_are_the_paths():
    f = Forecaster(h=6, freq="h", block=3, paths=50, lookback=24).fit(frame())
    draws = f.sample(50).filter(like="sample").to_numpy()
    out = f.predict(quantiles=[0.5])
    assert np.allclose(draws.mean(1), out["ridge"], rtol=1e-4)
    assert np.allclose(np.median(draws, axis=1), out["ridge-q-50"], rtol=1e-4)


def test_direct_draws_are_whole_stretches_of_errors():
    """Errors of the last value of a random walk add up: those of neighbouring steps go together, but are not equal."""
    y = np.random.default_rng(0).normal(size=4000).cumsum()
    data = pd.DataFrame({"unique_id": "walk", "ds": np.arange(4000), "y": y})
    f = Forecaster(h=4, freq=1, backbone="last_value").fit(data)
    steps = np.diff(f.sample(600).filter(like="sample").to_numpy(), axis=0)
    assert steps.std(1) == pytest.approx([1, 1, 1], rel=0.15)
    assert np.abs(np.corrcoef(steps) - np.eye(3)).max() < 0.2


def test_covariates_known_ahead_reach_every_block():
    rng = np.random.default_rng(0)
    data = frame(series=2, rows=400).assign(promo=lambda d: (rng.random(len(d)) < 0.3).astype(float))
    data["y"] += 5 * data["promo"]
    quick = FitConfig(steps=100, lr=5e-3, valid_every=50)
    f = Forecaster(6, "h", "tide", future=["promo"], lookback=24, fit=quick, block=2, paths=20)
    out = f.cross_validation(data, n_windows=3).merge(data[["unique_id", "ds", "promo"]])
    lift = out[out["promo"] == 1]["tide"].mean() - out[out["promo"] == 0]["tide"].mean()
    truth = out[out["promo"] == 1]["y"].mean() - out[out["promo"] == 0]["y"].mean()
    assert lift == pytest.approx(truth, abs=2)


def test_refusals():
    with pytest.raises(ValueError, match=r"block must divide h, .*; got block=4, h=6"):
        Forecaster(h=6, block=4)
    with pytest.raises(ValueError, match="past covariates are not known ahead of a block"):
        Forecaster(h=6, block=2, past=["a"])
    with pytest.raises(ValueError, match='intervals must be "law"'):
        Forecaster(h=6, intervals="law")
