import torch

from runnel.blocks.swiglu import Config, SwiGLU


def test_equals_the_formula_token_by_token():
    torch.manual_seed(0)
    block, x = SwiGLU(6, Config()).double(), torch.randn(2, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(block(x), block.reference(x), rtol=1e-12, atol=1e-12)


def test_width_follows_the_ratio():
    assert SwiGLU(48, Config()).out.in_features == 128
    assert SwiGLU(1, Config()).out.in_features == 8
