import math

import pytest
import torch

from runnel.heads.binned import Binned, Config, reference

LOGITS, LIMIT = [0.3, -1.0, 2.0, 0.5], 2.0


def parameters():
    return torch.tensor(LOGITS, dtype=torch.float64).log_softmax(0)[None, None]


def test_density_and_quantiles_equal_the_formulas():
    head = Binned(4, 1, Config(4, LIMIT))
    for y in (-1.7, -0.4, 0.01, 1.9):
        density, mass = reference(LOGITS, LIMIT, y)
        target = torch.tensor([[[y]]], dtype=torch.float64)
        assert abs(float(head.log_prob(parameters(), target)) - math.log(density)) < 1e-9
        assert float(head.quantile(parameters(), mass)) == pytest.approx(y, abs=1e-6)


def test_the_density_integrates_to_one_and_draws_follow_it():
    head = Binned(4, 1, Config(4, LIMIT))
    grid = torch.linspace(-LIMIT, LIMIT, 4001, dtype=torch.float64)[:-1, None]
    density = head.log_prob(parameters().expand(1, 4000, 4), grid[None]).exp()
    assert float(density.sum() * 2 * LIMIT / 4000) == pytest.approx(1)
    uniform = torch.rand(1, 20_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = head.sample(parameters().expand(1, 20_000, 4), uniform)
    assert float(drawn.mean()) == pytest.approx(float(head.mean(parameters())), abs=0.03)


def test_values_beyond_the_limits_fall_into_the_last_bins():
    head = Binned(4, 2, Config(4, LIMIT))
    law = head(torch.randn(1, 1, 4))
    far, edge = (head.log_prob(law, torch.tensor([[[sign * 99.0, 0.0]]])) for sign in (-1, -0.02))
    assert bool(far.isfinite().all() and edge.isfinite().all())
    with pytest.raises(ValueError, match="at least 2 bins"):
        Config(1)
