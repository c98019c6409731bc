import math

import pytest
import torch

from runnel.heads.student_t import Config, StudentT, reference, standard_quantile


def test_density_equals_the_formula_and_pytorchs():
    parameters = torch.tensor([[[0.5, -1.0, 0.2, -0.3, 2.5, 7.0]]], dtype=torch.float64)
    target = torch.tensor([[[1.5, -0.7]]], dtype=torch.float64)
    head = StudentT(4, 2, Config())
    expected = math.log(reference(1.5, 0.5, math.exp(0.2), 2.5)) + math.log(reference(-0.7, -1, math.exp(-0.3), 7))
    assert abs(float(head.log_prob(parameters, target)) - expected) < 1e-9
    mean, log_scale, v = parameters.chunk(3, -1)
    law = torch.distributions.StudentT(v, mean, log_scale.exp())
    torch.testing.assert_close(head.log_prob(parameters, target), law.log_prob(target).sum(-1))


@pytest.mark.parametrize(("v", "level", "expected"), [(2, 0.975, 4.302653), (5, 0.9, 1.475884), (100, 0.05, -1.660234)])
def test_quantiles_are_those_of_the_tables(v, level, expected):
    found = standard_quantile(torch.tensor([level], dtype=torch.float64), torch.tensor([float(v)]))
    assert float(found) == pytest.approx(expected, abs=1e-5)


def test_sampling_inverts_the_distribution():
    uniform = torch.rand(1, 20_000, 1, generator=torch.Generator().manual_seed(0))
    parameters = torch.tensor([[[1.0, math.log(2.0), 8.0]]]).expand(1, 20_000, 3)
    drawn = StudentT(4, 1, Config()).sample(parameters, uniform)
    assert abs(float(drawn.mean()) - 1) < 0.05 and abs(float(drawn.std()) - 2 * (8 / 6) ** 0.5) < 0.06


def test_freedom_keeps_the_variance_finite():
    head = StudentT(3, 2, Config())
    freedom = head(100 * torch.randn(1, 50, 3)).detach().chunk(3, -1)[2]
    assert float(freedom.min()) >= 2 and float(freedom.max()) <= 100
