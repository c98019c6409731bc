import pytest
import torch
from forecasters.support import a_window, mean_error, parts, seasonal

from runnel.forecasters.dlinear import Config, reference
from runnel.windows import FitConfig, WindowShape, build


@pytest.mark.parametrize("kernel", [1, 4, 5])
def test_equals_the_loop(kernel):
    shape = WindowShape(7, 3, channels=2)
    model = build(Config(kernel=kernel), shape).double()
    torch.nn.init.normal_(model.weight)
    window = a_window(shape)
    trend_map, rest_map = model.weight[:, 0].tolist()
    forecast = model.point(window)
    for row in range(3):
        for channel in range(2):
            x = window.history[row, :, channel].tolist()
            expected = torch.tensor(reference(x, trend_map, rest_map, kernel), dtype=torch.float64)
            assert (forecast[row, :, channel] - expected).abs().max() < 1e-9


def test_nlinear_moves_with_its_last_value():
    shape = WindowShape(7, 3)
    model, window = build(Config(kernel=None, norm="last"), shape).double(), a_window(shape)
    moved = type(window)(window.history + 5.0)
    assert (model.point(moved) - model.point(window) - 5.0).abs().max() < 1e-9


def test_channels_of_their_own():
    shape = WindowShape(7, 3, channels=2)
    model = build(Config(share=False), shape).double()
    with torch.no_grad():
        model.weight[:, 1] = 0
    assert (model.point(a_window(shape))[..., 1] == 0).all() and (model.point(a_window(shape))[..., 0] != 0).all()


def test_learns_a_season():
    shape = WindowShape(24, 6, channels=2)
    train, valid = parts(seasonal(), shape)
    model = build("dlinear", shape)
    report = model.fit(train, valid, FitConfig(steps=200, lr=1e-2, valid_every=50))
    assert report.valid_loss == pytest.approx(mean_error(model, valid), rel=1e-4)
    assert report.valid_loss < 0.02 < mean_error(build("last_value", shape), valid)
