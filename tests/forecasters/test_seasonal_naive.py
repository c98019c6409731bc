import pytest
import torch
from forecasters.support import a_window

from runnel.forecasters.seasonal_naive import Config, reference
from runnel.windows import WindowShape, build


@pytest.mark.parametrize(("season", "seasons"), [(1, 1), (3, 1), (7, 1), (3, 3), (4, 2)])
def test_equals_the_rule(season, seasons):
    shape = WindowShape(9, 8, channels=2)
    window = a_window(shape)
    forecast = build(Config(season, seasons), shape).point(window)
    for row in range(3):
        for channel in range(2):
            expected = reference(window.history[row, :, channel].tolist(), 8, season, seasons)
            assert (forecast[row, :, channel] - torch.tensor(expected, dtype=torch.float64)).abs().max() < 1e-12


def test_takes_the_season_of_the_windows_and_no_more_than_there_is():
    assert build("seasonal_naive", WindowShape(48, 5, season=24)).season == 24
    assert build("seasonal_naive", WindowShape(6, 5, season=24)).season == 6
    with pytest.raises(ValueError, match="at least 1; got 0"):
        Config(0)
