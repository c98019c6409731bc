import pytest
import torch
from forecasters.support import a_window, mean_error, parts, seasonal

from runnel.forecasters.mamba_mixer import Config, reference
from runnel.windows import FitConfig, Window, WindowShape, build, one_series


def small(**options):
    return Config(**{"patch": 4, "d_model": 8, "d_state": 4, "dropout": 0.0, **options})


@pytest.mark.parametrize("channels", [True, False])
@pytest.mark.parametrize("history, variates", [(11, 3), (3, 1)])
def test_equals_the_loop(history, variates, channels):
    shape = WindowShape(history, 4, channels=variates, outputs=2)
    model, window = build(small(channels=channels), shape).double(), a_window(shape)
    for weights in model.averages:
        torch.nn.init.normal_(weights)
    with torch.no_grad():
        for row in range(3):
            expected = reference(model, window.history[row]).view(variates, 4, 2).transpose(0, 1)
            assert (model(window)[row] - expected).abs().max() < 1e-9


def test_without_the_channel_scan_variates_are_apart():
    shape = WindowShape(12, 4, channels=3)
    window = a_window(shape)
    moved = window.history.clone()
    moved[..., 1] += torch.randn(12)
    for channels in (True, False):
        model = build(small(channels=channels), shape).double()
        change = (model.point(Window(moved)) - model.point(window)).abs().amax((0, 1)) > 1e-9
        assert change.tolist() == [channels, True, channels]


def test_the_channel_scan_reads_what_another_variate_knows():
    """The second variate repeats the noise of the first four rows later."""
    noise = torch.randn(600, 1, generator=torch.Generator().manual_seed(0))
    table = one_series(torch.cat([noise, noise.roll(4, 0)], dim=1))
    shape, errors = WindowShape(8, 4, channels=2), {}
    train, valid = parts(table, shape)
    for channels in (True, False):
        model = build(small(d_model=16, layers=1, channels=channels, norm="none"), shape)
        model.fit(train, valid, FitConfig(steps=150, lr=1e-2, valid_every=50, batch_size=32))
        window = valid.take(torch.arange(len(valid)))
        errors[channels] = float((model.point(window) - window.target)[..., 1].square().mean())
    assert errors[True] < 0.6 < 0.9 < errors[False]


def test_learns_a_season():
    shape = WindowShape(24, 6, channels=2)
    train, valid = parts(seasonal(), shape)
    model = build(small(layers=1), shape)
    model.fit(train, valid, FitConfig(steps=100, lr=1e-2, valid_every=50, batch_size=16))
    assert mean_error(model, valid) < 0.05 < mean_error(build("last_value", shape), valid)


def test_refuses_what_there_is_not():
    with pytest.raises(ValueError, match="layers of mamba_mixer must be at least 1; got 0"):
        Config(layers=0)
