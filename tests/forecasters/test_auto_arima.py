import sys

import pytest
import torch
from forecasters.support import a_window, autoregression

from runnel.forecasters.auto_arima import Config
from runnel.windows import Window, WindowShape, build


def test_says_which_package_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "statsforecast", None)
    with pytest.raises(ValueError, match="auto_arima needs the package statsforecast"):
        build("auto_arima", WindowShape(9, 4))


def test_refuses_what_there_is_not():
    with pytest.raises(ValueError, match="auto_arima needs season and largest >= 1; got None and 0"):
        Config(largest=0)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")
def test_forecasts_an_autoregression_as_its_coefficients_do():
    pytest.importorskip("statsforecast", reason="needs statsforecast")
    rows = autoregression((0.7, -0.4), rows=400).values
    shape = WindowShape(400, 4)
    found = build(Config(season=1), shape).point(Window(rows[None]))[0, :, 0].tolist()
    known = rows[-2:, 0].tolist()
    for y in found:
        known.append(0.7 * known[-1] - 0.4 * known[-2])
        assert y == pytest.approx(known[-1], abs=0.25)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")
def test_short_histories_are_forecast():
    pytest.importorskip("statsforecast", reason="needs statsforecast")
    for history in (1, 4, 7):
        shape = WindowShape(history, 3, channels=2, season=24)
        assert build("auto_arima", shape).point(a_window(shape, rows=2, dtype=torch.float32)).isfinite().all()
