import sys

import pytest
import torch
from forecasters.support import a_window, seasonal

from runnel.forecasters.auto_ets import Config
from runnel.windows import Window, WindowShape, build


def test_says_which_package_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "statsforecast", None)
    with pytest.raises(ValueError, match=r"statsforecast: pip install 'runnel\[statistics\]'"):
        build("auto_ets", WindowShape(9, 4))


def test_refuses_what_there_is_not():
    with pytest.raises(ValueError, match="model of auto_ets must be three letters of N, A, M and Z; got 'AB'"):
        Config("AB")


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")
def test_simple_smoothing_is_its_recursion_and_trend_and_season_are_found():
    pytest.importorskip("statsforecast", reason="needs statsforecast")
    shape = WindowShape(40, 3, channels=2)
    # a level only: one value for all rows
    flat = build(Config("ANN"), shape).point(a_window(shape, rows=2))
    assert flat.shape == (2, 3, 2) and torch.equal(flat[:, :1].expand_as(flat), flat)
    rows = seasonal(200, 1, noise=0.02).values + 0.01 * torch.arange(200)[:, None]
    seasons = WindowShape(180, 12, season=12)
    found = build("auto_ets", seasons).point(Window(rows[None, :180]))
    assert (found[0] - rows[180:192]).abs().max() < 0.2


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")
def test_short_and_constant_histories_are_forecast_by_their_last_value():
    pytest.importorskip("statsforecast", reason="needs statsforecast")
    for history in (1, 11, 12, 30):
        constant = Window(torch.full((2, history, 1), 5.0))
        assert (build("auto_ets", WindowShape(history, 4, season=24)).point(constant) == 5.0).all()
    for history in (1, 5, 13):
        shape = WindowShape(history, 4, season=24)
        assert build("auto_ets", shape).point(a_window(shape, dtype=torch.float32)).isfinite().all()
