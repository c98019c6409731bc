import pytest
import torch
from forecasters.support import a_window, mean_error, parts, seasonal

from runnel.forecasters.tsmixer import Config, reference
from runnel.windows import FitConfig, Window, WindowShape, build


def small(**options):
    return Config(**{"patch": 5, "stride": 4, "d_model": 8, "layers": 2, "dropout": 0.0, **options})


@pytest.mark.parametrize("options", [{}, {"gated": False}, {"mix_channels": True}])
@pytest.mark.parametrize("history", [11, 4])
def test_equals_the_loop(options, history):
    shape = WindowShape(history, 4, channels=3, outputs=2)
    model, window = build(small(**options), shape).double(), a_window(shape)
    with torch.no_grad():
        for row in range(3):
            assert (model(window)[row] - reference(model, window.history[row])).abs().max() < 1e-9


def test_channels_meet_only_where_they_are_mixed():
    shape = WindowShape(11, 4, channels=3)
    window = a_window(shape)
    moved = window.history.clone()
    moved[..., 2] += torch.randn(11)
    for options, apart in (({}, True), ({"mix_channels": True}, False)):
        model = build(small(**options), shape).double()
        same = torch.allclose(model.point(window)[..., 0], model.point(Window(moved))[..., 0])
        assert same == apart


def test_the_cross_channel_head_reads_rows_around():
    shape = WindowShape(11, 5, channels=2)
    model = build(small(reconcile=1), shape).double()
    y = torch.randn(1, 5, 2, 1, dtype=torch.float64)
    assert torch.equal(model.reconciled(y), y)  # at the start
    torch.nn.init.normal_(model.reconciled.down.weight)
    moved = y.clone()
    moved[0, 4, 1] += 1
    changed = (model.reconciled(moved) - model.reconciled(y)).abs().amax((0, 3)) > 1e-12
    assert changed.tolist() == [[False, False]] * 3 + [[True, True]] * 2


def test_learns_a_season():
    shape = WindowShape(24, 6, channels=2)
    train, valid = parts(seasonal(), shape)
    model = build(small(), shape)
    model.fit(train, valid, FitConfig(steps=100, lr=1e-2, valid_every=50, batch_size=32))
    assert mean_error(model, valid) < 0.05 < mean_error(build("last_value", shape), valid)


def test_refuses_what_there_is_not():
    with pytest.raises(ValueError, match="patch of tsmixer must be at least 1; got 0"):
        Config(patch=0)
    with pytest.raises(ValueError, match="reconcile of tsmixer must be None or at least 0 rows; got -1"):
        Config(reconcile=-1)
