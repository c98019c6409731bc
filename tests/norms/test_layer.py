import pytest
import torch

from runnel.norms.layer import Config, Layer


@pytest.mark.parametrize("bias", [False, True])
def test_equals_the_formula_vector_by_vector(bias):
    torch.manual_seed(0)
    norm, x = Layer(6, Config(eps=1e-3, bias=bias)).double(), torch.randn(2, 5, 6, dtype=torch.float64)
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    torch.testing.assert_close(norm(x), norm.reference(x), rtol=1e-12, atol=1e-12)
