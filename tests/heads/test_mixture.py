import math

import pytest
import torch

from runnel.heads.mixture import Config, Mixture, reference

WEIGHTS, MEANS, SCALES = [0.2, 0.8], [-2.0, 1.0], [0.5, 0.3]


def parameters():
    parts = [[math.log(w) for w in WEIGHTS], MEANS, [math.log(s) for s in SCALES]]
    return torch.tensor(parts, dtype=torch.float64).flatten()[None, None]


def test_density_and_quantiles_equal_the_formulas():
    head = Mixture(4, 1, Config(2))
    for y in (-2.5, -1.0, 0.9):
        density, mass = reference(y, WEIGHTS, MEANS, SCALES)
        assert abs(float(head.log_prob(parameters(), torch.tensor([[[y]]]))) - math.log(density)) < 1e-6
        assert float(head.quantile(parameters(), mass)) == pytest.approx(y, abs=1e-6)
    assert float(head.mean(parameters())) == pytest.approx(0.4)


def test_learns_two_modes():
    generator = torch.Generator().manual_seed(0)
    side = (torch.rand(2000, 1, 1, generator=generator) < 0.3).float() * 6 - 3
    y = side + 0.2 * torch.randn(2000, 1, 1, generator=generator)
    head, hidden = Mixture(2, 1, Config(2)), torch.ones(1, 1, 2)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        loss = -head.log_prob(head(hidden).expand(2000, 1, 6), y).mean()
        loss.backward()
        optimizer.step()
    spread = 0.5 * math.log(2 * math.pi * math.e) + math.log(0.2)
    assert loss.item() == pytest.approx(spread - 0.3 * math.log(0.3) - 0.7 * math.log(0.7), abs=0.05)


def test_several_channels_and_refusals():
    head = Mixture(4, 3, Config(2))
    law = head(torch.randn(2, 5, 4))
    assert law.shape == (2, 5, 18) and head.mean(law).shape == (2, 5, 3)
    assert head.log_prob(law, torch.zeros(2, 5, 3)).shape == (2, 5)
    assert (head.quantile(law, 0.2) < head.quantile(law, 0.4)).all()
    with pytest.raises(ValueError, match="components of mixture"):
        Config(0)
