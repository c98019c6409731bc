import pytest
import torch

from runnel.state import leaves

from .support import close, mixer, normal, run


def test_its_weights_are_a_distribution_over_the_past():
    made = mixer("latte", latents=3)
    p, k, v = made._project(normal(2, 500, 8))
    made._project = lambda x: (p, k, torch.full_like(v, 0.7))
    with torch.no_grad():
        made.out.weight.copy_(torch.eye(8))
    close(run(made, normal(2, 500, 8)), torch.full((2, 500, 8), 0.7, dtype=torch.float64))


def test_large_logits_in_float32_over_four_thousand_tokens():
    """The paper's stable form: logits of some hundreds, where a plain sum of exponentials overflows."""
    made = mixer("latte", head_dim=4, latents=3)
    with torch.no_grad():
        made.qk.weight.mul_(100)
        x = normal(1, 4096, 8)
        p, k, v = made._project(x)
        assert k.max() > 200
        weights = (p[:, -1:] * k.softmax(1)).sum(-1, keepdim=True)
        expected = made.out((weights * v).sum(1).flatten(-2))
        close(run(made.float(), x.float())[:, -1].double(), expected, bound=1e-3)


def test_the_state_does_not_grow():
    made = mixer("latte", d_model=32, head_dim=16, latents=5)
    assert sum(leaf.numel() for leaf in leaves(made.init_state(1))) == 2 * 5 * (16 + 2)


def test_impossible_options():
    with pytest.raises(ValueError, match="latents >= 1; got 0"):
        mixer("latte", latents=0)
