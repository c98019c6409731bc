import pytest
import torch
from forecasters.support import a_window, mean_error, parts, seasonal

from runnel.forecasters.tide import Config, reference
from runnel.windows import FitConfig, SeriesTable, WindowShape, build


def small(**options):
    return Config(**{"hidden": 16, "per_row": 3, "temporal": 8, "per_covariate": 2, "dropout": 0.0, **options})


@pytest.mark.parametrize("extra", [{}, {"future": 2}, {"future": 1, "static": 2, "past": 1}])
def test_equals_the_loop(extra):
    shape = WindowShape(7, 4, channels=2, outputs=2, **extra)
    model, window = build(small(), shape).double(), a_window(shape)
    found = model(window)
    for row in range(3):
        beside = [None if x is None else x[row] for x in (window.future, window.static)]
        for channel in range(2):
            expected = reference(model, window.history[row, :, channel], *beside)
            assert (found[row, :, channel] - expected).abs().max() < 1e-9


def test_what_is_known_ahead_is_read():
    """The series is noise plus twice a covariate that is known ahead: only with it is there anything to forecast."""
    generator = torch.Generator().manual_seed(0)
    known = torch.randn(404, 1, generator=generator)
    values = 2 * known[:400] + 0.1 * torch.randn(400, 1, generator=generator)
    errors = []
    for future in (None, known):
        table = SeriesTable(values, torch.tensor([400]), future=future, ahead=4)
        shape = WindowShape(8, 4, future=int(future is not None))
        train, valid = parts(table, shape)
        model = build(small(hidden=32, per_covariate=4, norm="none"), shape)
        model.fit(train, valid, FitConfig(steps=150, lr=1e-2, valid_every=50))
        errors.append(mean_error(model, valid))
    assert errors[1] < 1.0 < 3.0 < errors[0]


def test_learns_a_season():
    shape = WindowShape(24, 6, channels=2)
    train, valid = parts(seasonal(), shape)
    model = build(small(), shape)
    model.fit(train, valid, FitConfig(steps=150, lr=1e-2, valid_every=50, batch_size=32))
    assert mean_error(model, valid) < 0.05 < mean_error(build("last_value", shape), valid)


def test_refuses_what_there_is_not():
    with pytest.raises(ValueError, match="encoder of tide must be at least 1; got 0"):
        Config(encoder=0)
