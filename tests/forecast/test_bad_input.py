"""Bad input: a clear error, or a right answer for every other series; never a crash of the batch."""

import numpy as np
import pandas as pd
import pytest
from forecast.support import frame

from runnel.forecast import Forecaster


def good_series_are_as_without(data, bad, expected):
    """Fit with the bad series among the others: they are forecast as alone, and the bad one is NaN."""
    with pytest.warns(UserWarning, match=f"1 series left out: bad {expected}"):
        f = Forecaster(h=4, freq="h").fit(pd.concat([data, bad]))
    out = f.predict(level=[90])
    assert list(f.problems) == ["bad"] and expected in f.problems["bad"]
    alone = Forecaster(h=4, freq="h").fit(data).predict(level=[90])
    assert np.allclose(out[out["unique_id"] != "bad"].iloc[:, 2:], alone.iloc[:, 2:])
    assert out[out["unique_id"] == "bad"]["ridge"].isna().all() and (out["unique_id"] == "bad").sum() == 1


@pytest.fixture
def bad():
    return frame(series=1).assign(unique_id="bad")


def test_duplicate_times(bad):
    good_series_are_as_without(frame(), pd.concat([bad, bad.iloc[5:6]]), "has a time twice")


def test_infinite_values(bad):
    bad.loc[7, "y"] = np.inf
    good_series_are_as_without(frame(), bad, "has infinite values")


def test_no_value_at_all(bad):
    good_series_are_as_without(frame(), bad.assign(y=np.nan), "has no value")


def test_mixed_frequencies(bad):
    half = bad["ds"] + pd.to_timedelta(np.where(np.arange(len(bad)) > 50, 30, 0), "min")
    good_series_are_as_without(frame(), bad.assign(ds=half), "has times off the grid of 'h'")


def test_a_date_in_another_age(bad):
    bad.loc[0, "ds"] = pd.Timestamp("1970-01-01")
    good_series_are_as_without(frame(), bad, "is far too sparse")


def test_nothing_usable():
    with pytest.raises(ValueError, match="at least one series must be usable; none is: s0 has no value"):
        Forecaster(h=2).fit(frame(series=1).assign(y=np.nan))


def test_constant_and_one_row_series_are_forecast():
    constant = frame(series=1).assign(unique_id="flat", y=5.0)
    single = frame(series=1, rows=1).assign(unique_id="one", y=3.0)
    out = Forecaster(h=4, freq="h").fit(pd.concat([frame(), constant, single])).predict(level=[90])
    assert np.allclose(out[out["unique_id"] == "flat"]["ridge"], 5.0)
    assert np.allclose(out[out["unique_id"] == "one"]["ridge"], 3.0, atol=1.5) and not out.isna().any().any()


def test_missing_values_and_gaps():
    data = frame()
    whole = Forecaster(h=4).fit(data).predict()["ridge"]
    holes = data.drop(index=range(60, 63)).copy()
    holes.loc[[100, 250, 390], "y"] = np.nan
    f = Forecaster(h=4).fit(holes)
    assert f.gaps.to_dict("records") == [
        {"unique_id": "s0", "after": data["ds"][59], "before": data["ds"][63], "missing": 3}
    ]
    found = f.predict()["ridge"]
    assert not found.isna().any() and np.abs(found - whole).max() < 1.0


def test_missing_values_in_front_are_no_rows():
    data = frame(series=1)
    led = pd.concat([data.iloc[:0], data.assign(y=data["y"].where(data.index >= 20))])
    assert np.allclose(
        Forecaster(h=3).fit(led).predict()["ridge"], Forecaster(h=3).fit(data.iloc[20:]).predict()["ridge"]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.drop(columns="y"), r"it lacks \['y'\]"),
        (lambda d: d.iloc[:0], "at least one row"),
        (lambda d: d.assign(y="x"), "column 'y' must hold numbers"),
        (lambda d: d.assign(ds="yesterday"), "must hold dates or numbers"),
        (lambda d: d.assign(ds=d["ds"].where(d.index != 3)), "row 3 has none"),
        (lambda d: d.groupby("unique_id").head(5), r"at least one series must have h \+ 1 = 7 rows; the longest has 5"),
    ],
)
def test_bad_frames(change, message):
    with pytest.raises(ValueError, match=message):
        Forecaster(h=6).fit(change(frame()))


def test_bad_settings():
    with pytest.raises(ValueError, match='freq must be a pandas offset such as "h"'):
        Forecaster(h=2, freq="hourly-ish").fit(frame())
    with pytest.raises(ValueError, match="so freq must be a pandas offset; got 3"):
        Forecaster(h=2, freq=3).fit(frame())
    with pytest.raises(ValueError, match="lookback must be at most"):
        Forecaster(h=2, lookback=500).fit(frame())
    with pytest.raises(ValueError, match="a frame must be of pandas or polars, or a path; got list"):
        Forecaster(h=2).fit([1, 2])


def test_series_too_short_for_the_cutoffs_are_left_out_of_cross_validation():
    data = pd.concat([frame(series=2), frame(series=1, rows=8).assign(unique_id="short")])
    with pytest.warns(UserWarning, match="1 series left out: short has fewer than 13 rows"):
        out = Forecaster(h=4, freq="h").cross_validation(data, n_windows=3)
    assert sorted(out["unique_id"].unique()) == ["s0", "s1"] and not out.isna().any().any()
    with pytest.raises(ValueError, match="at least one series must be usable; none is: s0 has fewer than 601 rows"):
        Forecaster(h=4, freq="h").cross_validation(data, n_windows=150)


def test_a_hundred_thousand_series_some_of_them_bad():
    count, rows = 100_000, 6
    y = np.random.default_rng(0).normal(size=(count, rows))
    y[7], y[8, 2], y[9] = np.nan, np.inf, 3.0
    ids, times = np.repeat(np.arange(count), rows), np.tile(np.arange(rows), count)
    data = pd.DataFrame({"unique_id": ids, "ds": times, "y": y.ravel()})
    with pytest.warns(UserWarning, match="2 series left out: 7 has no value; 8 has infinite values"):
        out = Forecaster(h=1, freq=1, lookback=2).fit(data).predict(level=[80])
    assert len(out) == count and out["ridge"].isna().sum() == 2
    assert out.loc[out["unique_id"] == 9, "ridge"].to_numpy() == pytest.approx(3.0)
