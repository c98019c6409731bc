"""Frames of other libraries, and files."""

import numpy as np
import pandas as pd
import pytest
from forecast.support import frame

from runnel.forecast import Forecaster, panel


def test_a_polars_frame_gives_a_polars_frame():
    polars = pytest.importorskip("polars", reason="needs polars, which is optional")
    data = frame()
    expected = Forecaster(h=4).fit(data).predict(level=[90])
    given = polars.DataFrame({name: data[name].to_numpy() for name in data.columns})
    f = Forecaster(h=4).fit(given)
    found = f.predict(given, level=[90])
    assert isinstance(found, polars.DataFrame) and found.columns == list(expected.columns)
    assert np.allclose(found["ridge"].to_numpy(), expected["ridge"])
    assert isinstance(f.cross_validation(given), polars.DataFrame)


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow", reason="needs pyarrow, which is optional")
    frame().to_parquet(tmp_path / "data.parquet")
    found = Forecaster(h=4).fit(tmp_path / "data.parquet").predict()
    assert np.allclose(found["ridge"], Forecaster(h=4).fit(frame()).predict()["ridge"])


def test_long_and_wide_csv(tmp_path):
    data = frame()
    expected = Forecaster(h=4).fit(data).predict()["ridge"]
    data.to_csv(tmp_path / "long.csv", index=False)
    data.pivot(index="ds", columns="unique_id", values="y").to_csv(tmp_path / "wide.csv")
    for name in ("long.csv", "wide.csv"):
        assert np.allclose(Forecaster(h=4).fit(tmp_path / name).predict()["ridge"], expected)
    (tmp_path / "text.csv").write_text("date,a\n2024-01-01,x\n")
    with pytest.raises(ValueError, match="must be numbers after the first; 'a' is not"):
        panel.read(tmp_path / "text.csv")


def test_dates_among_times():
    data = frame()
    bare = data["ds"].dt.strftime("%Y-%m-%d %H:%M").str.replace(" 00:00", "")
    assert np.allclose(
        Forecaster(h=4).fit(data.assign(ds=bare)).predict()["ridge"], Forecaster(h=4).fit(data).predict()["ridge"]
    )


def test_very_many_series_one_of_them_bad():
    count, rows = 20_000, 12
    rng = np.random.default_rng(0)
    data = pd.DataFrame(
        {
            "unique_id": np.repeat(np.arange(count), rows),
            "ds": np.tile(np.arange(rows), count),
            "y": rng.normal(size=count * rows),
        }
    )
    data.loc[5 * rows : 6 * rows - 1, "y"] = np.nan
    with pytest.warns(UserWarning, match="1 series left out: 5 has no value"):
        out = Forecaster(h=2, lookback=4).fit(data).predict()
    assert len(out) == 2 * (count - 1) + 1 and out["ridge"].isna().sum() == 1
