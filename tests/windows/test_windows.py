"""Windows are cut from a table as one would cut them by hand; a fit keeps its best weights and repeats itself."""

import pytest
import torch

from runnel.forecasters.dlinear import Config
from runnel.windows import FitConfig, SeriesTable, WindowShape, build, one_series
from runnel.windows.model import normalised


def two_series():
    values = torch.cat([torch.arange(6.0), 100 + torch.arange(4.0)])[:, None]
    return SeriesTable(values, torch.tensor([6, 4]), future=torch.arange(14.0)[:, None], ahead=2)


def test_windows_of_several_series():
    shape = WindowShape(3, 2, future=1)
    windows = two_series().windows(shape, torch.tensor([3, 2]), torch.tensor([6, 4]))
    assert windows.first.tolist() == [3, 4, 2] and windows.series.tolist() == [0, 0, 1]
    window = windows.take(torch.arange(3))
    assert window.history[..., 0].tolist() == [[0, 1, 2], [1, 2, 3], [100, 100, 101]]  # the last one lacks a row
    assert window.target[..., 0].tolist() == [[3, 4], [4, 5], [102, 103]]
    assert window.future[..., 0].tolist() == [[0, 1, 2, 3, 4], [1, 2, 3, 4, 5], [8, 8, 9, 10, 11]]


def test_the_latest_window_has_no_target():
    window = two_series().latest(WindowShape(3, 2, future=1)).take(torch.arange(2))
    assert window.target is None and window.history[..., 0].tolist() == [[3, 4, 5], [101, 102, 103]]
    assert window.future[..., 0].tolist() == [[3, 4, 5, 6, 7], [9, 10, 11, 12, 13]]


def test_missing_targets_are_nan_and_do_not_count():
    missing = torch.zeros(6, 1, dtype=torch.bool)
    missing[4] = True
    table = SeriesTable(torch.arange(6.0)[:, None], torch.tensor([6]), missing=missing)
    window = table.windows(WindowShape(3, 2), torch.tensor([3]), torch.tensor([5])).take(torch.tensor([0]))
    assert window.target[0, 0, 0] == 3 and window.target[0, 1, 0].isnan()
    model = build("last_value", WindowShape(3, 2))
    assert float(model.loss(window, FitConfig(loss="mae"))) == 1.0


@pytest.mark.parametrize("norm", ["none", "last", "mean", "revin"])
def test_normalisation_is_undone(norm):
    history = torch.randn(2, 9, 3, dtype=torch.float64) * 3 + 7
    window = one_series(history[0]).latest(WindowShape(9, 2, 3)).take(torch.tensor([0]))
    inside, loc, scale = normalised(window, norm)
    assert (inside.history * scale + loc - window.history).abs().max() < 1e-9
    if norm == "revin":
        assert (
            inside.history.mean(1).abs().max() < 1e-9 and (inside.history.std(1, unbiased=False) - 1).abs().max() < 1e-4
        )


def test_a_fit_repeats_itself_and_keeps_the_best_weights():
    values = torch.randn(200, 1, generator=torch.Generator().manual_seed(1)).cumsum(0)
    shape, table = WindowShape(8, 2), one_series(values)
    train, valid = (table.windows(shape, torch.tensor([a]), torch.tensor([b])) for a, b in ((8, 150), (150, 200)))
    config = FitConfig(steps=60, lr=0.5, valid_every=1, patience=2)
    models = [build(Config(), shape) for _ in range(2)]
    reports = [model.fit(train, valid, config) for model in models]
    assert torch.equal(models[0].weight, models[1].weight) and reports[0].valid_loss == reports[1].valid_loss
    assert reports[0].steps < 60, "so high a rate must be stopped early"
    whole = valid.take(torch.arange(len(valid)))
    assert models[0].loss(whole, config).item() == pytest.approx(reports[0].valid_loss, rel=1e-5)


def test_refusals():
    with pytest.raises(ValueError, match="history of a window must be at least 1; got 0"):
        WindowShape(0, 1)
    with pytest.raises(ValueError, match="loss must be one of mse, mae, huber; got 'l3'"):
        FitConfig(loss="l3")
    with pytest.raises(ValueError, match="no forecaster is called 'rigde'; did you mean 'ridge'"):
        build("rigde", WindowShape(1, 1))
