import pytest
import torch
from forecasters.support import a_window, mean_error, parts, seasonal

from runnel.forecasters.ttm import Config, adapted, reference
from runnel.windows import FitConfig, SeriesTable, Window, WindowShape, build


def small(**options):
    fields = {"patch": 6, "d_model": 8, "levels": 2, "per_level": 1, "decoder": 1, "d_decoder": 4, "dropout": 0.0}
    return Config(**{**fields, **options})


def test_adaptive_patching_equals_the_loop():
    shape = WindowShape(18, 4)
    model, z = build(small(levels=3), shape).double(), torch.randn(2, 3, 3, 8, dtype=torch.float64)
    for i, k in enumerate((4, 2, 1)):
        found = adapted(z, k, model.levels[i])
        for row in range(2):
            for channel in range(3):
                assert (found[row, channel] - reference(z[row, channel], k, model.levels[i])).abs().max() < 1e-9


@pytest.mark.parametrize("history", [3, 18, 20])
@pytest.mark.parametrize("options", [{}, {"seasons": (1, 12)}, {"mix_channels": True}])
def test_shapes(history, options):
    shape = WindowShape(history, 4, channels=3, outputs=2, season=12)
    model = build(small(**options), shape).double()
    assert model(a_window(shape)).shape == (3, 4, 3, 2)


def test_channels_meet_only_in_a_mixing_decoder():
    shape = WindowShape(18, 4, channels=3)
    window = a_window(shape)
    moved = window.history.clone()
    moved[..., 2] += torch.randn(18)
    for mixed in (False, True):
        model = build(small(mix_channels=mixed), shape).double()
        same = torch.allclose(model.point(window)[..., 0], model.point(Window(moved))[..., 0])
        assert same != mixed


def test_fitted_on_some_series_it_forecasts_another():
    """Trained on sines of several phases and sizes with one season; a held-out one is forecast without a fit."""
    shape = WindowShape(24, 6, season=12)
    series = [scale * seasonal(200, 1, seed=i).values.roll(3 * i, 0) for i, scale in enumerate((1.0, 5.0, 0.3))]
    table = SeriesTable(torch.cat(series), torch.tensor([200] * 3))
    low, cut, high = (torch.tensor([rows] * 3) for rows in (24, 150, 200))
    model = build(small(levels=1), shape)
    config = FitConfig(steps=80, lr=1e-2, valid_every=40, batch_size=16)
    model.fit(table.windows(shape, low, cut), table.windows(shape, cut, high), config)
    unseen = seasonal(200, 1, noise=0.3, seed=9)
    windows = unseen.windows(shape, torch.tensor([24]), torch.tensor([200]))
    naive = build("seasonal_naive", shape)
    assert mean_error(model, windows) < mean_error(naive, windows)


def test_learns_a_season():
    shape = WindowShape(24, 6, channels=2)
    train, valid = parts(seasonal(), shape)
    model = build(small(), shape)
    model.fit(train, valid, FitConfig(steps=100, lr=1e-2, valid_every=50, batch_size=32))
    assert mean_error(model, valid) < 0.05 < mean_error(build("last_value", shape), valid)


def test_refuses_what_there_is_not():
    with pytest.raises(ValueError, match="d_model of ttm must be a multiple of 4; got 6"):
        Config(d_model=6)
    with pytest.raises(ValueError, match=r"the season of ttm's windows must be one of \(24,\); got 1"):
        build(Config(seasons=(24,)), WindowShape(24, 6))
