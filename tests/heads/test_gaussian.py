import torch

from runnel.heads.gaussian import Config, Gaussian


def test_against_pytorchs_normal():
    parameters, target = torch.randn(2, 3, 4), torch.randn(2, 3, 2)
    mean, log_scale = parameters.chunk(2, dim=-1)
    law, head = torch.distributions.Normal(mean, log_scale.exp()), Gaussian(4, 2, Config())
    torch.testing.assert_close(head.log_prob(parameters, target), law.log_prob(target).sum(-1))
    torch.testing.assert_close(head.mean(parameters), law.mean)
    torch.testing.assert_close(head.quantile(parameters, 0.9), law.icdf(torch.tensor(0.9)))


def test_sampling_inverts_the_distribution():
    parameters = torch.tensor([[[1.0, 0.5]]]).expand(1, 20_000, 2)
    drawn = Gaussian(4, 1, Config()).sample(
        parameters, torch.rand(1, 20_000, 1, generator=torch.Generator().manual_seed(0))
    )
    assert abs(float(drawn.mean()) - 1.0) < 0.05 and abs(float(drawn.std()) - 0.5 * torch.e**0.5 / 0.5 * 1.0) < 0.05
