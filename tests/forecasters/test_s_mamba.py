import pytest
import torch
from forecasters.support import a_window, mean_error, parts, seasonal

from runnel.forecasters.s_mamba import Config, reference
from runnel.windows import FitConfig, Window, WindowShape, build


def small(**options):
    return Config(**{"d_model": 16, "hidden": 16, "layers": 1, "dropout": 0.0, **options})


@pytest.mark.parametrize("channels", [1, 3])
def test_equals_the_loop(channels):
    shape = WindowShape(9, 4, channels=channels, outputs=2)
    model, window = build(small(layers=2, d_state=3), shape).double().eval(), a_window(shape)
    for row in range(3):
        expected = reference(model, window.history[row].T).view(channels, 4, 2).transpose(0, 1)
        assert (model(window)[row] - expected).abs().max() < 1e-9


def test_every_variate_reads_every_other_and_their_order_matters():
    shape = WindowShape(9, 4, channels=4)
    model, window = build(small(layers=2), shape).double().eval(), a_window(shape)
    for channel in range(4):
        moved = window.history.clone()
        moved[..., channel] += torch.randn(9)
        change = (model.point(Window(moved)) - model.point(window)).abs().amax((0, 1))
        assert (change > 1e-9).all()
    order = [2, 0, 3, 1]
    turned = model.point(Window(window.history[..., order]))
    assert not torch.allclose(turned, model.point(window)[..., order])


def test_learns_a_season():
    shape = WindowShape(24, 6, channels=2)
    train, valid = parts(seasonal(), shape)
    model = build(small(), shape)
    model.fit(train, valid, FitConfig(steps=80, lr=1e-2, valid_every=40, batch_size=16))
    assert mean_error(model, valid) < 0.05 < mean_error(build("last_value", shape), valid)


def test_refuses_what_there_is_not():
    with pytest.raises(ValueError, match="d_state of s_mamba must be at least 1; got 0"):
        Config(d_state=0)
