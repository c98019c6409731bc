import pytest
import torch
from forecasters.support import mean_error, parts, seasonal

from runnel.forecasters.local_ridge import Config, reference
from runnel.windows import WindowShape, build, one_series


@pytest.mark.parametrize("pull", [0.0, 0.4])
def test_equals_least_squares_on_stacked_rows(pull):
    shape = WindowShape(5, 3, channels=2)
    table = one_series(torch.randn(60, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    train = table.windows(shape, torch.tensor([5]), torch.tensor([60]))
    model = build(Config("mean", pull, 2.0), shape).double()
    model.fit(train, train)
    window = train.take(torch.arange(len(train)))
    level = window.history.mean(1, keepdim=True)
    x, y = ([(a - level)[..., c] for c in range(2)] for a in (window.history, window.target))
    for found, expected in zip(model.weight, reference(x, y, pull, 2.0), strict=True):
        assert (found - expected).abs().max() < 1e-9


def test_channels_with_rules_of_their_own():
    values = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    for t in range(1, 400):
        values[t] = 0.1 * values[t] + torch.tensor([0.95, -0.95]) * values[t - 1]
    shape = WindowShape(6, 1, channels=2)
    train, valid = parts(one_series(values), shape)
    errors = []
    for config in (Config("none", 0.0, 1.0), Config("none", 1e6, 1.0)):
        model = build(config, shape)
        assert model.fit(train, valid).valid_loss == pytest.approx(mean_error(model, valid), rel=1e-4)
        errors.append(mean_error(model, valid))
    assert errors[0] < 0.013 < 0.015 < errors[1]


def test_learns_a_season_and_refuses_bad_knobs():
    shape = WindowShape(24, 6, channels=2)
    train, valid = parts(seasonal(), shape)
    assert build(Config(penalty=1.0), shape).fit(train, valid).valid_loss < 0.01
    with pytest.raises(ValueError, match="local_ridge needs"):
        Config(pull=-1)
