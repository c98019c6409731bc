"""Nothing looks ahead: what comes after a cutoff changes no forecast, no scale and no covariate from before it."""

import numpy as np
import pandas as pd
import pytest
import torch
from forecast.support import frame

from runnel.forecast import Forecaster, panel, scaling
from runnel.forecasters import backbone
from runnel.windows import FitConfig, SeriesTable, WindowShape

CUTOFF = pd.Timestamp("2024-01-01") + pd.Timedelta("149h")


def perturbed(data):
    """The same rows up to the cutoff, and other ones after it, some of them missing."""
    rng = np.random.default_rng(9)
    late = data["ds"] > CUTOFF
    changed = data.assign(y=data["y"].where(~late, 1e3 * rng.normal(size=len(data))))
    changed["promo"] = data["promo"].where(~late, 50.0)
    changed.loc[late & (rng.random(len(data)) < 0.3), "y"] = np.nan
    return changed


@pytest.fixture
def data():
    rng = np.random.default_rng(1)
    return frame().assign(promo=rng.random(600))


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize(
    "model", ["ridge", "seasonal_naive", backbone.Config("mingru", "value", 8)], ids=["ridge", "naive", "mingru"]
)
def test_forecasts_from_a_cutoff(data, model, refit):
    f = Forecaster(h=6, freq="h", backbone=model, past=["promo"], fit=FitConfig(steps=3, valid_every=3))
    first = [f.cross_validation(d, 9, 6, refit, level=[80]) for d in (data, perturbed(data))]
    a, b = (out[out["cutoff"] <= CUTOFF].drop(columns="y") for out in first)
    assert len(a) > 0
    pd.testing.assert_frame_equal(a, b)


@pytest.mark.parametrize("block", [1, 3])
def test_paths_from_a_cutoff(data, block):
    f = Forecaster(h=6, freq="h", block=block, paths=5, lookback=24)
    first = [f.cross_validation(d, 9, 6, level=[80]) for d in (data, perturbed(data))]
    a, b = (out[out["cutoff"] <= CUTOFF].drop(columns="y") for out in first)
    assert len(a) > 0
    pd.testing.assert_frame_equal(a, b)


def test_scales_and_filled_values_of_training_rows(data):
    made = [panel.make(d, panel.Columns(past=("promo",)), "h") for d in (data, perturbed(data))]
    upto = np.full(3, 150)
    rows = np.concatenate([np.arange(150) + 200 * i for i in range(3)])
    statistics = [scaling.statistics(p.values[:, None], p.lengths, upto) for p in made]
    filled = [scaling.filled(np.c_[p.values, p.covariates], p.lengths)[rows] for p in made]
    kept = np.isin(np.arange(600), rows)
    beside = [scaling.covariate_statistics(p.covariates, kept) for p in made]
    for a, b in (statistics, filled, beside):
        assert np.array_equal(np.asarray(a), np.asarray(b))


def test_windows_hold_nothing_from_after_their_first_target():
    values = torch.arange(40.0)[:, None]
    table = SeriesTable(values, torch.tensor([40]), past=values, future=torch.arange(42.0)[:, None], ahead=2)
    shape = WindowShape(5, 2, past=1, future=1)
    windows = table.windows(shape, torch.tensor([5]), torch.tensor([40]))
    window = windows.take(torch.arange(len(windows)))
    assert bool((window.history[:, -1, 0] < windows.first).all() and (window.past[:, -1, 0] < windows.first).all())
    assert bool((window.target[:, 0, 0] == windows.first).all() and (window.future[:, 5, 0] == windows.first).all())
