import math

import pytest
import torch

from runnel.heads import gaussian
from runnel.heads.digits import Config, Digits, reference, value


def small(outcomes=1, **options):
    torch.manual_seed(0)
    return Digits(4, outcomes, Config(**{"base": 3, "digits": 3, "width": 5, "limit": 2.0, **options})).double()


@pytest.mark.parametrize("base, digits", [(3, 3), (2, 5), (10, 2), (4, 1)])
def test_density_equals_digits_one_by_one_and_numbers_are_found_again(base, digits):
    head, hidden = small(base=base, digits=digits), torch.randn(2, 3, 4, dtype=torch.float64)
    law = head(hidden)
    for y in (-1.97, -0.4, 0.013, 1.2, 1.999):
        target = torch.full((2, 3, 1), y, dtype=torch.float64)
        found = head.log_prob(law, target)
        for row in range(2):
            for t in range(3):
                written, density = reference(head, hidden[row, t], y)
                assert abs(found[row, t].item() - math.log(density)) < 1e-9
                assert abs(value(written, head.config) - y) <= 2.0 / base**digits + 1e-12


def test_the_tree_integrates_to_one_for_every_channel():
    head = small(outcomes=2)
    law = head(torch.randn(1, 5, 4, dtype=torch.float64)).unflatten(-1, (2, -1))
    assert law.shape[-1] == 27 and (law.exp().sum(-1) - 1).abs().max() < 1e-9


def test_quantiles_and_draws_are_those_of_the_tree():
    head = small()
    law = head(torch.randn(1, 1, 4, dtype=torch.float64))
    uniform = torch.rand(1, 20_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = head.sample(law.expand(1, 20_000, 27), uniform)
    assert drawn.mean().item() == pytest.approx(head.mean(law).item(), abs=0.03)
    assert (drawn < head.quantile(law, 0.3)).double().mean().item() == pytest.approx(0.3, abs=0.02)


def likelihood(head, features, targets, steps=100):
    """The mean log-density of targets after training on them."""
    optimizer = torch.optim.Adam(head.parameters(), lr=4e-2)
    for _ in range(steps):
        loss = -head.log_prob(head(features), targets).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return -loss.item()


def test_two_modes_and_changing_spread_are_told_better_than_by_a_gaussian():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 400, 1, generator=generator) * 2 - 1
    sign = torch.randint(0, 2, (1, 400, 1), generator=generator) * 2.0 - 1
    y = 2 * sign + (0.1 + 0.2 * x.abs()) * torch.randn(1, 400, 1, generator=generator)
    features = torch.cat([x, x.abs(), torch.ones_like(x)], -1)
    torch.manual_seed(0)
    ours = likelihood(Digits(3, 1, Config(digits=5, width=8)), features, y)
    theirs = likelihood(gaussian.Gaussian(3, 1, gaussian.Config()), features, y)
    assert ours > theirs + 0.5


def test_refuses_what_there_is_not():
    with pytest.raises(ValueError, match="at most 4096 bins; got 10 and 4"):
        Config(base=10, digits=4)
    with pytest.raises(ValueError, match="positive width and limit; got 16 and 0"):
        Config(limit=0)
