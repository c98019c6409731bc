import pytest
import torch
from forecasters.support import a_window, mean_error, parts

from runnel.forecasters.itransformer import Config, reference
from runnel.windows import FitConfig, Window, WindowShape, build, one_series


def small(**options):
    return Config(**{"d_model": 16, "heads": 2, "hidden": 16, "layers": 2, "dropout": 0.0, **options})


def test_equals_the_loop():
    shape = WindowShape(9, 4, channels=3, outputs=2)
    model, window = build(small(), shape).double().eval(), a_window(shape)
    for row in range(3):
        expected = reference(model, window.history[row].T).view(3, 4, 2).transpose(0, 1)
        assert (model(window)[row] - expected).abs().max() < 1e-9


def test_variates_may_be_permuted_and_others_be_given():
    shape = WindowShape(9, 4, channels=3)
    model, window = build(small(), shape).double().eval(), a_window(shape)
    order = [2, 0, 1]
    turned = model.point(Window(window.history[..., order]))
    assert (turned - model.point(window)[..., order]).abs().max() < 1e-9
    assert model.point(a_window(WindowShape(9, 4, channels=5))).shape == (3, 4, 5)


def test_covariates_up_to_now_are_tokens():
    shape = WindowShape(9, 4, channels=2, past=1, future=1)
    model, window = build(small(), shape).double().eval(), a_window(shape)
    ahead = window.future.clone()
    ahead[:, 9:] += 1
    late = Window(window.history, past=window.past, future=ahead)
    assert torch.equal(model.point(late), model.point(window))
    assert not torch.allclose(model.point(Window(window.history)), model.point(window))


def test_reads_a_leader_that_single_channels_cannot():
    """The second channel repeats white noise of the first four rows later: only across variates is it known."""
    noise = torch.randn(600, 1, generator=torch.Generator().manual_seed(0))
    table = one_series(torch.cat([noise, noise.roll(4, 0)], dim=1))
    shape = WindowShape(8, 4, channels=2)
    train, valid = parts(table, shape)
    model = build(small(d_model=32, hidden=32, norm="none"), shape)
    model.fit(train, valid, FitConfig(steps=250, lr=3e-3, valid_every=50))
    ridge = build("ridge", shape)
    ridge.fit(train, valid)
    window = valid.take(torch.arange(len(valid)))
    errors = [float((m.point(window) - window.target)[..., 1].square().mean()) for m in (model, ridge)]
    assert errors[0] < 0.5 < 0.8 < errors[1] and mean_error(model, valid) < mean_error(ridge, valid)


def test_refuses_what_there_is_not():
    with pytest.raises(ValueError, match="layers of itransformer must be at least 1; got 0"):
        Config(layers=0)
