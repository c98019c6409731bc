import pytest
import torch
from forecasters.support import a_window, mean_error, parts, seasonal

from runnel.forecasters.time_moe import Config, reference
from runnel.windows import FitConfig, Window, WindowShape, build


def small(**options):
    return Config(**{"d_model": 8, "layers": 2, "experts": 3, "heads": (1, 2, 5), **options})


@pytest.mark.parametrize("mixer", ["attention", "mingru"])
@pytest.mark.parametrize("history, horizon", [(6, 9), (1, 1), (5, 4)])
def test_equals_the_loop(mixer, history, horizon):
    shape = WindowShape(history, horizon, channels=2)
    model, window = build(small(mixer=mixer), shape).double(), a_window(shape, rows=2)
    with torch.no_grad():
        for row in range(2):
            for channel in range(2):
                expected = reference(model, window.history[row, :, channel])
                assert (model(window)[row, :, channel, 0] - expected).abs().max() < 1e-9


def test_every_horizon_is_composed_of_heads():
    for horizon in (1, 2, 3, 4, 7, 11):
        shape = WindowShape(6, horizon)
        model = build(small(), shape).double()
        assert model(a_window(shape)).shape == (3, horizon, 1, 1)
        assert list(model.heads) == [p for p in ("1", "2", "5") if int(p) <= horizon]


def test_missing_targets_do_not_count():
    shape = WindowShape(6, 4)
    model, window = build(small(mixer="mingru"), shape).double(), a_window(shape)
    gappy = Window(window.history, window.target.clone())
    gappy.target[:, 3] = torch.nan
    other = Window(window.history, gappy.target.clone())
    other.target[:, 2] += 1
    losses = [model.loss(w, FitConfig()) for w in (gappy, other)]
    assert losses[0].isfinite() and losses[0] != losses[1]


def test_learns_a_season_with_all_experts_at_work():
    shape = WindowShape(24, 6, channels=2)
    train, valid = parts(seasonal(), shape)
    model = build(small(mixer="mingru", layers=1), shape)
    model.fit(train, valid, FitConfig(steps=60, lr=1e-2, valid_every=30, batch_size=16))
    assert mean_error(model, valid) < 0.05 < mean_error(build("last_value", shape), valid)
    window = valid.take(torch.arange(32))
    routed, seen = model.trunk.layers[0].block.routed, []
    routed.router.register_forward_hook(lambda *call: seen.append(call[2]))
    model.point(window)
    share = torch.cat([x.topk(2).indices.flatten() for x in seen]).bincount(minlength=3).float()
    assert (share / share.sum()).min() > 0.05


def test_refuses_what_there_is_not():
    with pytest.raises(ValueError, match=r"must be rising lengths, the first of them 1; got \(2, 4\)"):
        Config(heads=(2, 4))
    with pytest.raises(ValueError, match="moe needs 1 <= active <= experts"):
        build(small(active=4), WindowShape(6, 4))
    with pytest.raises(ValueError, match="time_moe gives points"):
        build("time_moe", WindowShape(8, 2, outputs=2))
