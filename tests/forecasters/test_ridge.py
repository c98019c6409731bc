import pytest
import torch
from forecasters.support import a_window, mean_error, parts, seasonal

from runnel.forecasters.ridge import Config, apply, reference
from runnel.windows import SeriesTable, WindowShape, build
from runnel.windows.regression import anchored, squared_error, sums


def test_equals_least_squares_on_stacked_rows():
    shape = WindowShape(6, 4)
    values = torch.randn(60, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    train = SeriesTable(values, torch.tensor([60])).windows(shape, torch.tensor([6]), torch.tensor([60]))
    window = train.take(torch.arange(len(train)))
    anchor = torch.zeros(6, dtype=torch.float64)
    anchor[-1] = 1
    gram, cross, _ = anchored(sums(train), anchor)
    weight = torch.linalg.solve(gram + 3.0 * torch.eye(6, dtype=torch.float64), cross)
    new = a_window(shape, rows=1).history
    expected = reference(window.history[..., 0], window.target[..., 0], 3.0, new[0, :, 0])
    assert (apply(new, anchor, weight)[0, :, 0] - expected).abs().max() < 1e-9


def test_recovers_a_linear_rule_and_chooses_on_validation():
    shape = WindowShape(24, 6, channels=2)
    train, valid = parts(seasonal(), shape)
    model = build("ridge", shape)
    report = model.fit(train, valid)
    assert report.valid_loss == pytest.approx(mean_error(model, valid), rel=1e-4)
    assert report.valid_loss < 1.5 * 0.05**2
    alone = [build(Config((a,), (p,)), shape).fit(train, valid) for a in ("last", "mean") for p in (1e2, 1e3, 1e4)]
    assert report.valid_loss == pytest.approx(min(r.valid_loss for r in alone))


def test_windows_with_missing_targets_are_left_out():
    shape = WindowShape(8, 3)
    table = seasonal(channels=1)
    holes = torch.zeros(400, 1, dtype=torch.bool)
    holes[100] = True
    spoilt = torch.where(holes, 1e6, table.values)
    gappy = SeriesTable(spoilt, table.lengths, missing=holes)
    late = torch.tensor([101 + 8]), torch.tensor([400])
    around = torch.tensor([100 - 2]), torch.tensor([100 + 3])
    assert sums(gappy.windows(shape, *around)).targets == 0
    found, expected = (sums(t.windows(shape, *late)) for t in (gappy, table))
    assert torch.equal(found.gram, expected.gram) and torch.equal(found.cross, expected.cross)


@pytest.mark.parametrize("weights", [[0, 0, 0, 0, 1], [0.2] * 5, [0.5, 0, 0, 0.1, 0.4]])
def test_sums_of_any_anchor_follow_from_one_pass(weights):
    shape, anchor = WindowShape(5, 3, channels=2), torch.tensor(weights, dtype=torch.float64)
    values = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    windows = SeriesTable(values, torch.tensor([50])).windows(shape, torch.tensor([5]), torch.tensor([50]))
    window = windows.take(torch.arange(len(windows)))
    x, y = (part.transpose(1, 2).flatten(0, 1) for part in (window.history, window.target))
    level = (x @ anchor)[:, None]
    judged = anchored(sums(windows), anchor)
    assert (judged[0] - (x - level).T @ (x - level)).abs().max() < 1e-9
    assert (judged[1] - (x - level).T @ (y - level)).abs().max() < 1e-9
    weight = torch.randn(5, 3, dtype=torch.float64)
    error = (apply(window.history, anchor, weight) - window.target).square().sum()
    assert squared_error(judged, weight) == pytest.approx(float(error), rel=1e-9)


def test_gives_points_only():
    with pytest.raises(ValueError, match="ridge gives points"):
        build("ridge", WindowShape(8, 2, outputs=2))
    with pytest.raises(ValueError, match=r"penalties of ridge must be positive; got \(0,\)"):
        Config(penalties=(0,))
