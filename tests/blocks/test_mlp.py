import pytest
import torch

from runnel.blocks.mlp import MLP, Config


@pytest.mark.parametrize("bias", [False, True])
def test_equals_the_formula_token_by_token(bias):
    torch.manual_seed(0)
    block = MLP(6, Config(bias=bias, activation="squared_relu")).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(block(x), block.reference(x), rtol=1e-12, atol=1e-12)


def test_an_activation_that_there_is_not():
    with pytest.raises(ValueError, match=r"must be one of silu, .* got 'softmax'"):
        MLP(6, Config(activation="softmax"))
