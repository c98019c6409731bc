import pytest
import torch
from forecasters.support import a_window, mean_error, parts, seasonal

from runnel.forecasters.patchtst import Config, reference
from runnel.windows import FitConfig, Window, WindowShape, build
from runnel.windows.model import normalised


def small(**options):
    return Config(**{"patch": 6, "stride": 4, "d_model": 8, "heads": 2, "hidden": 16, "layers": 2, **options})


@pytest.mark.parametrize("history", [15, 14, 6, 3])
def test_equals_the_loop(history):
    shape = WindowShape(history, 4, channels=2)
    model = build(small(), shape).double().eval()
    window = a_window(shape)
    inside = normalised(window, "none")[0]
    found = model(inside)
    for row in range(3):
        for channel in range(2):
            expected = reference(model, inside.history[row, :, channel])
            assert (found[row, :, channel, 0] - expected).abs().max() < 1e-9


def test_channels_do_not_see_each_other():
    shape = WindowShape(15, 4, channels=3, outputs=2)
    window = a_window(shape)
    model = build(small(), shape).double().eval()
    moved = window.history.clone()
    moved[..., 2] += torch.randn(15)
    before, after = model(window), model(Window(moved))
    assert before.shape == (3, 4, 3, 2)
    assert torch.equal(before[:, :, :2], after[:, :, :2]) and not torch.allclose(before[:, :, 2], after[:, :, 2])


def test_learns_a_season():
    shape = WindowShape(24, 6, channels=2)
    train, valid = parts(seasonal(), shape)
    model = build(small(dropout=0.0), shape)
    model.fit(train, valid, FitConfig(steps=150, lr=1e-2, valid_every=50, batch_size=32))
    assert mean_error(model, valid) < 0.05 < mean_error(build("last_value", shape), valid)


def test_refuses_what_there_is_not():
    with pytest.raises(ValueError, match="stride of patchtst must be at least 1; got 0"):
        Config(stride=0)
    with pytest.raises(ValueError, match="heads must divide d_model; got 3 heads, d_model 16"):
        build(Config(heads=3), WindowShape(24, 6))
    with pytest.raises(ValueError, match=r"dropout of patchtst must be in \[0, 1\); got 1"):
        Config(dropout=1)
