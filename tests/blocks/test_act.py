import pytest
import torch

import runnel
from runnel.blocks.act import ACT, Config


def block(bias=0.0, **options):
    torch.manual_seed(0)
    made = ACT(6, Config(**options)).double()
    with torch.no_grad():
        made.first.normal_()
        made.halt.bias.fill_(bias)
        made.halt.weight.mul_(3)
    return made


def tokens():
    return torch.randn(3, 7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("options", [{}, {"most": 1}, {"most": 3, "hidden": 4}, {"spare": 0.4}])
def test_equals_every_token_alone(options):
    made, x = block(**options), tokens()
    torch.testing.assert_close(made(x), made.reference(x), rtol=1e-9, atol=1e-9)
    if options.get("most") != 1:
        assert len(made.steps(x).unique()) > 1, "tokens that all take as long prove little"


def test_weights_of_the_steps_sum_to_one():
    """With states that do not change the mean state is that state."""
    made, x = block(), tokens()
    with torch.no_grad():
        made.again.weight.zero_()
        made.first.zero_()
        torch.testing.assert_close(made(x), made.out(torch.tanh(made.input(x))))


def test_the_readier_it_is_to_halt_the_fewer_steps():
    x = tokens()
    means = [float(block(bias, most=20).steps(x).double().mean()) for bias in (-3, -1, 1, 5)]
    assert means == sorted(means, reverse=True) and means[0] > 2 * means[-1]


def test_the_price_has_the_gradient_of_the_remainder():
    """Against finite differences of R, summed as its definition says, in the mean over tokens."""
    x, price = tokens(), 0.7
    found = []
    for cost in (price, 0.0):
        made = block(1.0, price=cost, most=200)
        made(x).sum().backward()
        found.append(made.halt.bias.grad.clone())
    made = block(1.0)

    def remainder(bias):
        rests = []
        with torch.no_grad():
            made.halt.bias.fill_(bias)
            for token in x.flatten(0, 1):
                state, left = torch.tanh(made.input(token) + made.first), 1.0
                while left - (h := float(made.halt(state).sigmoid())) > 0.01:
                    left, state = left - h, torch.tanh(made.input(token) + made.again(state))
                rests.append(left)
        return sum(rests) / len(rests)

    slope = (remainder(1 + 1e-6) - remainder(1 - 1e-6)) / 2e-6
    assert float(found[0] - found[1]) == pytest.approx(price * slope, rel=1e-4)


def test_in_a_model():
    model = runnel.build("gla+act", vocab_size=5, d_model=6).double()
    text = torch.randint(0, 5, (2, 9))
    whole, _ = model(text)
    _, state = model(text[:, :4])
    torch.testing.assert_close(model(text[:, 4:], state)[0], whole[:, 4:], rtol=1e-9, atol=1e-9)
