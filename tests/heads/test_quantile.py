import pytest
import torch

from runnel.heads.quantile import Config, Quantile, reference


def head_and_parameters(levels, free):
    """A head whose free numbers are given."""
    head = Quantile(len(free), 1, Config(levels)).double()
    with torch.no_grad():
        head.parameters_of.weight.copy_(torch.eye(len(free)))
        head.parameters_of.bias.zero_()
    return head, head(torch.tensor([[free]], dtype=torch.float64))


def test_equals_the_formulas():
    levels, free = (0.1, 0.4, 0.8), [-0.3, 0.5, -1.0]
    head, parameters = head_and_parameters(levels, free)
    quantiles, score = reference(free, levels, 0.2)
    assert (parameters[0, 0] - torch.tensor(quantiles, dtype=torch.float64)).abs().max() < 1e-9
    assert abs(float(head.score(parameters, torch.tensor([[[0.2]]], dtype=torch.float64)).detach()) - score) < 1e-6
    for level, q in zip(levels, quantiles, strict=True):
        assert abs(float(head.quantile(parameters, level).detach()) - q) < 1e-6
    between = float(head.quantile(parameters, 0.25).detach())
    assert abs(between - (quantiles[0] + quantiles[1]) / 2) < 1e-6
    assert float(head.quantile(parameters, 0.999).detach()) == pytest.approx(quantiles[-1])


def test_the_score_is_smallest_at_the_quantiles_of_the_data():
    y = torch.rand(4000, 1, 1, generator=torch.Generator().manual_seed(0)) * 10
    head = Quantile(2, 1, Config((0.1, 0.5, 0.9)))
    hidden = torch.ones(1, 1, 2)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        (-head.score(head(hidden).expand(4000, 1, 3), y).mean()).backward()
        optimizer.step()
    found = head(hidden).detach().flatten().tolist()
    assert found == pytest.approx([1, 5, 9], abs=0.25)
    assert float(head.mean(head(hidden)).detach()) == pytest.approx(5, abs=0.2)


def test_refusals():
    with pytest.raises(ValueError, match="rising"):
        Config((0.5, 0.1))
    with pytest.raises(ValueError, match="no density"):
        Quantile(2, 1, Config()).log_prob(torch.zeros(1, 1, 15), torch.zeros(1, 1, 1))
