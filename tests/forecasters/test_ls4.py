import pytest
import torch
from forecasters.support import a_window, mean_error, parts, seasonal

from runnel.forecasters.ls4 import Config, reference
from runnel.windows import FitConfig, Window, WindowShape, build
from runnel.windows.model import normalised


def small(**options):
    return Config(**{"pattern": "s4d(d_state=4)", "d_model": 8, "latent": 2, "draws": 4, **options})


@pytest.mark.parametrize("rows, channels", [(9, 2), (1, 1)])
def test_all_rows_at_once_equal_one_after_the_other(rows, channels):
    model = build(small(), WindowShape(5, 4, channels=channels)).double()
    x, noise = torch.randn(2, rows, channels).double(), torch.randn(2, rows, 2).double()
    found = model.elbo(x, torch.ones_like(x, dtype=torch.bool), noise)
    for row in range(2):
        assert (found[row] - reference(model, x[row], noise[row])).abs() < 1e-9


def test_missing_targets_do_not_count():
    shape = WindowShape(5, 4)
    model, window = build(small(), shape).double().eval(), a_window(shape)
    gappy = Window(window.history, window.target.clone())
    gappy.target[:, 3] = torch.nan
    assert model.loss(gappy, FitConfig()).isfinite()
    assert model.loss(gappy, FitConfig()) != model.loss(window, FitConfig())


def test_a_point_is_the_mean_of_paths_and_repeats_itself():
    shape = WindowShape(6, 3, channels=2)
    model, window = build(small(), shape).double().eval(), a_window(shape)
    assert torch.equal(model.point(window), model.point(window))
    drawn = model.paths(window.history, 4, torch.Generator().manual_seed(0))
    assert drawn.shape == (4, 3, 3, 2) and torch.equal(drawn.mean(0), model(window)[..., 0])
    assert drawn.std(0).min() > 1e-3


def test_learns_a_season_and_how_much_it_varies():
    shape = WindowShape(24, 6)
    train, valid = parts(seasonal(channels=1, noise=0.2), shape)
    model = build(small(d_model=16, draws=16), shape)
    model.fit(train, valid, FitConfig(steps=140, lr=2e-2, valid_every=70, batch_size=16))
    assert mean_error(model, valid) < 0.15 < mean_error(build("last_value", shape), valid)
    window, loc, scale = normalised(valid.take(torch.arange(len(valid))), "revin")
    with torch.no_grad():
        drawn = model.paths(window.history, 64, torch.Generator().manual_seed(1)) * scale + loc
    low, high = drawn.quantile(0.05, 0), drawn.quantile(0.95, 0)
    inside = ((low <= window.target) & (window.target <= high)).float().mean().item()
    assert 0.75 < inside < 0.99


def test_refuses_what_there_is_not():
    with pytest.raises(ValueError, match="latent of ls4 must be at least 1; got 0"):
        Config(latent=0)
    with pytest.raises(ValueError, match="ls4 gives points"):
        build("ls4", WindowShape(8, 2, outputs=2))
