import pytest
import torch

from runnel.ops.features import taylor

from .support import close, mixer, normal


def test_inner_products_of_features_are_the_taylor_series():
    q, k = normal(1, 30, 2, 16), normal(1, 30, 2, 16, seed=1)
    s = (q * k).sum(-1) / 4
    close((taylor(q) * taylor(k)).sum(-1), 1 + s + s**2 / 2)
    assert taylor(q).shape[-1] == 1 + 16 + 136


def test_it_is_softmax_attention_for_small_scores():
    """The paper's idea: close to exp where scores are small. The error is of third order in the scores."""
    errors = []
    for size in (0.02, 0.04):
        q, k, v = [size**0.5 * normal(1, 20, 1, 4, seed=s) for s in (0, 1)] + [normal(1, 20, 1, 4, seed=2)]
        scores = torch.einsum("bthk,bjhk->bhtj", q, k) / 2
        exact = scores.masked_fill(torch.ones(20, 20).triu(1).bool(), -torch.inf).softmax(-1)[0, 0] @ v[0, :, 0]
        weights = torch.einsum("bthk,bjhk->bhtj", taylor(q), taylor(k)).tril()
        errors.append((weights[0, 0] / weights[0, 0].sum(-1, keepdim=True) @ v[0, :, 0] - exact).abs().max())
    assert errors[0] < 2e-4 and 6 < errors[1] / errors[0] < 11


def test_the_state_is_what_the_feature_dim_says():
    made = mixer("based", d_model=64, head_dim=32, feature_dim=4)
    assert made.init_state(3).memory.shape == (3, 2, 1 + 4 + 10, 33)


def test_impossible_options():
    with pytest.raises(ValueError, match="feature_dim >= 1; got 0"):
        mixer("based", feature_dim=0)
