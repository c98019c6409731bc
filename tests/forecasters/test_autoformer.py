import pytest
import torch
from forecasters.support import a_window, mean_error, parts, seasonal

from runnel.forecasters.autoformer import AutoCorrelation, Config
from runnel.windows import FitConfig, WindowShape, build


def small(**options):
    return Config(**{"d_model": 8, "hidden": 16, "encoder": 1, "kernel": 5, "dropout": 0.0, **options})


def test_other_lengths_are_padded_or_cut():
    torch.manual_seed(0)
    layer, x = AutoCorrelation(4, 1.0).double(), torch.randn(2, 6, 4, dtype=torch.float64)
    long = torch.randn(2, 9, 4, dtype=torch.float64)
    assert torch.equal(layer(x, long), layer(x, long[:, :6])) and layer(x, long[:, :3]).shape == x.shape


def test_the_trend_starts_from_the_mean():
    shape = WindowShape(8, 3, channels=2)
    model, window = build(small(), shape).double(), a_window(shape)
    with torch.no_grad():
        model.out.weight.zero_(), model.out.bias.zero_(), model.trends[0].rows.weight.zero_()
    assert torch.allclose(model.point(window), window.history.mean(1, keepdim=True).expand(-1, 3, -1))


@pytest.mark.parametrize("history, label", [(9, None), (9, 20), (1, None)])
def test_shapes_and_covariates(history, label):
    shape = WindowShape(history, 4, channels=3, outputs=2, future=2)
    model, window = build(small(label=label), shape).double(), a_window(shape)
    assert model(window).shape == (3, 4, 3, 2)
    later = window.future.clone()
    later[:, -1] += 1
    assert not torch.allclose(model(type(window)(window.history, future=later)), model(window))


def test_learns_a_season():
    shape = WindowShape(24, 6, channels=2)
    train, valid = parts(seasonal(), shape)
    model = build(small(), shape)
    model.fit(train, valid, FitConfig(steps=60, lr=2e-2, valid_every=30, batch_size=16))
    assert mean_error(model, valid) < 0.1 < mean_error(build("last_value", shape), valid)


def test_refuses_what_there_is_not():
    with pytest.raises(ValueError, match="factor and label of autoformer must be positive; got 0 and None"):
        Config(factor=0)
