"""A forecaster that was saved forecasts the same; what is damaged or foreign is refused."""

import numpy as np
import pandas as pd
import pytest
from forecast.support import frame

from runnel.forecast import Forecaster, load, save
from runnel.forecasters import backbone, dlinear
from runnel.windows import FitConfig

QUICK = FitConfig(steps=3, valid_every=3)


@pytest.mark.parametrize(
    "settings",
    [
        {"backbone": "ridge"},
        {"backbone": "seasonal_naive", "season": 12},
        {"backbone": "auto"},
        {"backbone": dlinear.Config(), "head": "student_t", "fit": QUICK},
        {"backbone": backbone.Config(pattern="mingru", d_model=8), "head": "mixture(components=2)", "fit": QUICK},
        {"backbone": "dlinear", "together": True, "fit": QUICK},
    ],
    ids=lambda settings: str(settings["backbone"])[:14],
)
def test_the_same_forecasts_after_loading(settings, tmp_path):
    f = Forecaster(h=4, **settings).fit(frame())
    save(f, tmp_path / "run")
    again = load(tmp_path / "run")
    expected, found = f.predict(level=[80]), again.predict(level=[80])
    pd.testing.assert_frame_equal(found, expected)
    assert again.report == f.report
    further = frame(rows=210)
    assert np.allclose(again.predict(further).iloc[:, 2:], f.predict(further).iloc[:, 2:])


def test_problems_and_covariates_are_kept(tmp_path):
    data = frame().assign(promo=1.0, kind=lambda d: d["unique_id"].str[1:].astype(float))
    static = data.groupby("unique_id", as_index=False)["kind"].first()
    broken = data[data["unique_id"] == "s0"].assign(unique_id="bad", y=np.nan)
    with pytest.warns(UserWarning, match="left out"):
        f = Forecaster(h=4, backbone=backbone.Config("mingru", "value", 8), past=["promo"], static=["kind"], fit=QUICK)
        f.fit(pd.concat([data, broken]), static_df=pd.concat([static, pd.DataFrame({"unique_id": ["bad"], "kind": 0})]))
    save(f, tmp_path)
    pd.testing.assert_frame_equal(load(tmp_path).predict(), f.predict())
    assert load(tmp_path).problems == {"bad": "has no value"}


@pytest.mark.parametrize("whole", [False, True], ids=["dates", "numbers"])
def test_gaps_are_kept(tmp_path, whole):
    data = frame(series=2).drop(index=[30, 31, 250])
    if whole:
        data = data.assign(ds=(data["ds"] - data["ds"].min()) // pd.Timedelta("1h"))
    f = Forecaster(h=3).fit(data)
    save(f, tmp_path)
    pd.testing.assert_frame_equal(load(tmp_path).gaps, f.gaps)
    assert f.gaps["missing"].tolist() == [2, 1]


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match="call fit"):
        save(Forecaster(h=1), tmp_path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none")
    (tmp_path / "forecaster.json").write_text('{"format": "other"}')
    with pytest.raises(ValueError, match="does not describe a Runnel forecaster"):
        load(tmp_path)
