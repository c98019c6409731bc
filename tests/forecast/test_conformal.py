"""Conformal quantiles are those of the definition, and hold what they promise where errors are exchangeable."""

import pytest
import torch

from runnel.forecast import conformal
from runnel.windows import WindowShape, build, one_series


@pytest.mark.parametrize("n", [5, 99, 250])
def test_equal_the_definition(n):
    errors = torch.randn(n, 3, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    held = conformal.HeldOut(errors)
    for step in range(3):
        low, high = conformal.reference(errors[:, step].tolist(), 0.2)
        assert float(held.quantile(0.1)[step]) == low
        assert float(held.quantile(0.9)[step]) == high


def test_hold_what_they_promise_on_later_windows():
    values = torch.randn(6000, 1, generator=torch.Generator().manual_seed(0))
    shape, table = WindowShape(4, 2), one_series(values)
    model = build("seasonal_naive", shape)
    early, late = (table.windows(shape, torch.tensor([a]), torch.tensor([a + 3000])) for a in (4, 3000))
    held = conformal.errors(model, early)
    low, high = held.quantile(0.05), held.quantile(0.95)
    window = late.take(torch.arange(len(late)))
    error = (window.target - model.point(window))[..., 0]
    assert 0.87 < float(((error >= low) & (error <= high)).float().mean()) < 0.93


def test_no_errors_no_interval():
    with pytest.raises(ValueError, match="need held-out windows"):
        conformal.HeldOut(torch.zeros(0, 3)).quantile(0.9)
