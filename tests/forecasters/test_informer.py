import pytest
import torch
from forecasters.support import a_window, mean_error, parts, seasonal

from runnel.forecasters.informer import Config, ProbSparse
from runnel.windows import FitConfig, Window, WindowShape, build
from runnel.windows.layers import WholeAttention


def small(**options):
    return Config(**{"d_model": 8, "heads": 2, "hidden": 16, "dropout": 0.0, **options})


def test_with_all_queries_answered_it_is_full_attention():
    torch.manual_seed(0)
    sparse, full = ProbSparse(8, 2, factor=100.0, causal=False).double(), WholeAttention(8, 2).double()
    full.load_state_dict(sparse.state_dict())
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    assert (sparse(x) - full(x)).abs().max() < 1e-9


def test_distilling_halves_the_rows_and_forecasts_repeat_themselves():
    shape = WindowShape(13, 4, channels=2)
    model, window = build(small(encoder=3, factor=1.0), shape).double().eval(), a_window(shape)
    x = torch.randn(2, 13, 8, dtype=torch.float64)
    assert model.distil[0](x).shape[1] == 7 and model.distil[1](model.distil[0](x)).shape[1] == 4
    assert torch.equal(model.point(window), model.point(window))


@pytest.mark.parametrize("history, label", [(9, None), (9, 20), (1, None)])
def test_shapes_and_covariates(history, label):
    shape = WindowShape(history, 4, channels=3, outputs=2, future=2)
    model, window = build(small(label=label, encoder=1), shape).double().eval(), a_window(shape)
    assert model(window).shape == (3, 4, 3, 2)
    later = window.future.clone()
    later[:, -1] += 1
    assert not torch.allclose(model(Window(window.history, future=later)), model(window))


def test_the_whole_horizon_sees_the_whole_history():
    shape = WindowShape(9, 4)
    model, window = build(small(), shape).double().eval(), a_window(shape)
    moved = window.history.clone()
    moved[:, 0] += 3
    assert ((model.point(Window(moved)) - model.point(window)).abs() > 1e-9).all()


def test_learns_a_season():
    shape = WindowShape(24, 6, channels=2)
    train, valid = parts(seasonal(), shape)
    model = build(small(encoder=1), shape)
    model.fit(train, valid, FitConfig(steps=120, lr=2e-2, valid_every=40, batch_size=32))
    assert mean_error(model, valid) < 0.1 < mean_error(build("last_value", shape), valid)


def test_refuses_what_there_is_not():
    with pytest.raises(ValueError, match="heads must divide d_model; got 3 heads, d_model 512"):
        Config(heads=3)
    with pytest.raises(ValueError, match=r"factor and label of informer must be positive; got 5\.0 and 0"):
        Config(label=0)
