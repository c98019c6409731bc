import pytest
import torch
from forecasters.support import a_window, mean_error, parts

from runnel.forecasters.joint_ridge import Config, reference
from runnel.windows import WindowShape, build, one_series


def test_equals_least_squares_on_stacked_rows():
    shape = WindowShape(4, 3, channels=2)
    table = one_series(torch.randn(60, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    train = table.windows(shape, torch.tensor([4]), torch.tensor([60]))
    model = build(Config(4, 2.0), shape).double()
    model.fit(train, train)
    window, new = train.take(torch.arange(len(train))), a_window(shape, rows=1)
    expected = reference(window.history, window.target, 2.0, new.history[0])
    assert (model.point(new)[0] - expected).abs().max() < 1e-9


def test_finds_a_channel_that_leads():
    leader = torch.randn(400, 1, generator=torch.Generator().manual_seed(0))
    shape = WindowShape(8, 2, channels=2)
    train, valid = parts(one_series(torch.cat([leader, leader.roll(3, 0)], dim=1)), shape)
    model, alone = build(Config(6, 1.0), shape), build("ridge", shape)
    model.fit(train, valid)
    alone.fit(train, valid)
    window = valid.take(torch.arange(len(valid)))
    follower = (model.point(window) - window.target)[..., 1].square().mean()
    assert follower < 1e-3 and mean_error(alone, valid) > 0.5


def test_refuses_bad_knobs():
    with pytest.raises(ValueError, match="joint_ridge needs"):
        Config(rows=0)
