"""The front end: frames in, frames out, in the units and the columns of the ecosystem."""

import numpy as np
import pandas as pd
import pytest
from forecast.support import frame, wave

from runnel.forecast import Forecaster
from runnel.forecasters import backbone, dlinear
from runnel.windows import FitConfig

QUICK = FitConfig(steps=60, lr=1e-2, valid_every=20)


def test_columns_times_and_units():
    data = frame()
    out = Forecaster(h=12, freq="h").fit(data).predict(level=[80, 90], quantiles=[0.1])
    assert list(out.columns) == [
        "unique_id", "ds", "ridge", "ridge-lo-80", "ridge-hi-80", "ridge-lo-90", "ridge-hi-90", "ridge-q-10",
    ]  # fmt: skip
    assert out["unique_id"].value_counts().to_dict() == {"s0": 12, "s1": 12, "s2": 12}
    for id, part in out.groupby("unique_id"):
        last = data["ds"].max()
        assert list(part["ds"]) == list(pd.date_range(last, periods=13, freq="h")[1:])
        number = int(id[1:])
        assert np.abs(part["ridge"] - wave(id, part["ds"])).max() < 0.35 * (1 + number)
    assert (out["ridge-lo-90"] <= out["ridge-lo-80"]).all() and (out["ridge-hi-80"] <= out["ridge-hi-90"]).all()
    assert np.allclose(out["ridge-q-10"], out["ridge-lo-80"])


def test_order_and_names_of_columns_do_not_matter():
    data = frame()
    expected = Forecaster(h=6).fit(data).predict()
    shuffled = data.sample(frac=1, random_state=0).rename(columns={"unique_id": "item", "ds": "when", "y": "sales"})
    found = Forecaster(h=6, id="item", time="when", target="sales").fit(shuffled).predict()
    assert list(found.columns) == ["item", "when", "ridge"]
    assert np.allclose(found["ridge"], expected["ridge"])


def test_series_of_different_lengths_and_starts():
    data = frame(rows=300)
    late = (data["unique_id"] != "s1") | (data["ds"] >= "2024-01-09")
    early = (data["unique_id"] != "s2") | (data["ds"] < "2024-01-08")
    out = Forecaster(h=6).fit(data[late & early]).predict()
    assert out.groupby("unique_id")["ds"].min()["s2"] == pd.Timestamp("2024-01-08")
    for id, part in out.groupby("unique_id"):
        assert np.abs(part["ridge"] - wave(id, part["ds"])).max() < 0.5 * (1 + int(id[1:]))


@pytest.mark.parametrize("head", ["gaussian", "student_t", "quantile", "mixture", "binned(bins=50)", "digits"])
def test_heads_give_intervals_and_draws(head):
    f = Forecaster(h=4, backbone=dlinear.Config(), head=head, fit=QUICK, lookback=24).fit(frame())
    out = f.predict(level=[80], quantiles=[0.5])
    low, middle, high = (out[f"dlinear-{name}"] for name in ("lo-80", "q-50", "hi-80"))
    assert (low < middle).all() and (middle < high).all() and np.isfinite(out["dlinear"]).all()
    draws = f.sample(50, seed=1).filter(like="sample").to_numpy()
    assert draws.shape == (12, 50) and np.array_equal(draws, f.sample(50, seed=1).filter(like="sample").to_numpy())
    inside = (draws > low.to_numpy()[:, None]) & (draws < high.to_numpy()[:, None])
    assert 0.7 < inside.mean() < 0.9


def test_intervals_without_a_head_cover_what_comes():
    data = frame(series=8, rows=500, noise=0.3)
    f = Forecaster(h=12)
    out = f.cross_validation(data, n_windows=4, level=[90])
    covered = ((out["ridge-lo-90"] <= out["y"]) & (out["y"] <= out["ridge-hi-90"])).mean()
    assert 0.85 <= covered <= 0.95 and f.fitted is None


def test_a_pattern_of_mixers_is_a_backbone():
    f = Forecaster(h=4, backbone="mingru", fit=FitConfig(steps=2, valid_every=1)).fit(frame())
    assert "mingru" in f.predict().columns
    with pytest.raises(ValueError, match=r"backbone must be one of .*ridge.*, or a pattern of mixers"):
        Forecaster(h=4, backbone="rigde")


def test_together_mixes_channels():
    data = frame()
    config = backbone.Config(pattern="mingru", embed="inverted", d_model=8)
    f = Forecaster(h=4, backbone=config, together=True, fit=FitConfig(steps=2, valid_every=1)).fit(data)
    out = f.predict()
    assert f.fitted.model.shape.channels == 3 and out["unique_id"].tolist() == ["s0"] * 4 + ["s1"] * 4 + ["s2"] * 4
    means = out.groupby("unique_id")["mingru"].mean()
    assert abs(means["s2"] - 20) < 5 and abs(means["s0"]) < 2
    with pytest.raises(ValueError, match="same first and last time"):
        Forecaster(h=4, backbone="ridge", together=True).fit(data.iloc[1:])


def test_predict_from_other_rows_and_other_series():
    data = frame(rows=220)
    cut = pd.Timestamp("2024-01-01") + pd.Timedelta("200h")
    f = Forecaster(h=6).fit(data[data["ds"] < cut])
    later = f.predict(data)
    assert later["ds"].min() == data["ds"].max() + pd.Timedelta("1h")
    other = data[data["unique_id"] == "s1"].assign(unique_id="new", y=lambda d: d["y"] * 100)
    new = f.predict(other)["ridge"].to_numpy()
    assert new == pytest.approx(100 * later[later["unique_id"] == "s1"]["ridge"].to_numpy(), rel=0.05)


def test_covariates_known_ahead_are_asked_for_and_checked():
    data = frame().assign(promo=lambda d: (d["ds"].dt.day_of_week == 2).astype(float))
    f = Forecaster(h=6, backbone="ridge", future=["promo"]).fit(data)
    with pytest.raises(ValueError, match="need futr_df"):
        f.predict()
    times = pd.date_range(data["ds"].max(), periods=7, freq="h")[1:]
    futr = pd.concat([pd.DataFrame({"unique_id": f"s{i}", "ds": times, "promo": 1.0}) for i in range(3)])
    assert len(f.predict(futr_df=futr)) == 18
    with pytest.raises(ValueError, match="1 are missing, the first is 's1' at 2024-01-09 09:00:00"):
        f.predict(futr_df=futr[~((futr["unique_id"] == "s1") & (futr["ds"] == times[1]))])


def test_covariates_known_ahead_help_a_model_that_reads_them():
    rng = np.random.default_rng(0)
    data = frame(series=2, rows=400).assign(promo=lambda d: (rng.random(len(d)) < 0.3).astype(float))
    data["y"] += 5 * data["promo"]
    quick = FitConfig(steps=200, lr=3e-3, valid_every=50)
    errors = []
    for future in ([], ["promo"]):
        f = Forecaster(h=6, freq="h", backbone="tide", future=future, lookback=24, fit=quick)
        out = f.cross_validation(data, n_windows=3)
        errors.append((out["tide"] - out["y"]).abs().mean())
    assert errors[1] < 0.7 * errors[0]


def test_partial_fit_goes_on_with_new_rows():
    data = frame(rows=220)
    cut = pd.Timestamp("2024-01-01") + pd.Timedelta("200h")
    f = Forecaster(h=6, backbone="dlinear", fit=QUICK).fit(data[data["ds"] < cut])
    scale, weight = f.fitted.scales.scale, f.fitted.model.weight.clone()
    f.partial_fit(data[data["ds"] >= cut])
    assert f.fitted.panel.lengths.tolist() == [220] * 3 and (f.fitted.scales.scale == scale).all()
    assert not (f.fitted.model.weight == weight).all()
    assert f.predict()["ds"].min() == data["ds"].max() + pd.Timedelta("1h")


def test_cross_validation_has_the_columns_of_the_ecosystem():
    data = frame()
    out = Forecaster(h=5).cross_validation(data, n_windows=3, step_size=2)
    assert list(out.columns) == ["unique_id", "ds", "cutoff", "y", "ridge"] and len(out) == 3 * 3 * 5
    cutoffs = sorted(out["cutoff"].unique())
    assert cutoffs == [data["ds"].max() - pd.Timedelta(f"{5 + back}h") for back in (4, 2, 0)]
    assert ((out["ds"] > out["cutoff"]) & (out["ds"] <= out["cutoff"] + pd.Timedelta("5h"))).all()
    assert not out["y"].isna().any()
    refitted = Forecaster(h=5).cross_validation(data, n_windows=3, step_size=2, refit=True)
    same = out["cutoff"] == cutoffs[0]
    assert np.allclose(out["ridge"][same], refitted["ridge"][same])
    assert not np.allclose(out["ridge"][~same], refitted["ridge"][~same])


@pytest.mark.parametrize("freq", ["MS", "ME", "W-SUN", "B", "D", "QS-JAN", "15min"])
def test_calendars(freq):
    data = frame(series=2, rows=80, season=12, freq=freq)
    out = Forecaster(h=3).fit(data).predict()
    expected = pd.date_range(data["ds"].iloc[0], periods=83, freq=freq)[-3:]
    assert list(out["ds"][:3]) == list(expected)


def test_whole_numbers_as_times():
    data = frame().assign(ds=lambda d: d.groupby("unique_id").cumcount() * 5)
    out = Forecaster(h=3, freq=5).fit(data).predict()
    assert out["ds"][:3].tolist() == [1000, 1005, 1010]
    assert Forecaster(h=3).fit(data).predict()["ds"].tolist() == out["ds"].tolist()


def test_refusals():
    with pytest.raises(ValueError, match="h must be a whole number of at least 1; got 0"):
        Forecaster(h=0)
    with pytest.raises(ValueError, match="call fit"):
        Forecaster(h=1).predict()
    with pytest.raises(ValueError, match="ridge gives points"):
        Forecaster(h=2, head="gaussian").fit(frame())
    with pytest.raises(ValueError, match="one of tokens"):
        Forecaster(h=2, head="categorical")
    with pytest.raises(ValueError, match="level must be in"):
        Forecaster(h=2).fit(frame()).predict(level=[0.9, 100])


@pytest.mark.parametrize("model", ["ridge", "auto"])
def test_season_and_trend_are_recovered(model):
    """A slope and a day that both go on, of which the last season knows one."""
    rng = np.random.default_rng(0)
    hours = np.arange(624)
    truth = 0.05 * hours + np.sin(2 * np.pi * hours / 24)
    times = pd.date_range("2024-01-01", periods=600, freq="h")
    data = pd.DataFrame({"unique_id": "a", "ds": times, "y": truth[:600] + 0.1 * rng.normal(size=600)})
    out = Forecaster(h=24, backbone=model, lookback=96).fit(data).predict()
    naive = Forecaster(h=24, backbone="seasonal_naive").fit(data).predict()
    error, missed = (np.abs(f[name] - truth[600:]).mean() for f, name in ((out, model), (naive, "seasonal_naive")))
    assert error < 0.35 < 1.0 < missed
