"""ProbSparse attention is its loop, and plain attention where all queries are answered."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from runnel.ops.prob_sparse import prob_sparse, reference


def inputs(length):
    return torch.randn(3, 2, 2, length, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length, factor", [(1, 5.0), (12, 1.0), (17, 2.0)])
def test_equals_the_loop(length, factor, causal):
    q, k, v = inputs(length)
    found = prob_sparse(q, k, v, factor, causal)
    for row in range(2):
        for head in range(2):
            expected = reference(q[row, head], k[row, head], v[row, head], factor, causal)
            assert (found[row, head] - expected).abs().max() < 1e-9


@pytest.mark.parametrize("causal", [False, True])
def test_is_full_attention_where_every_query_is_answered(causal):
    q, k, v = inputs(9)
    assert torch.allclose(prob_sparse(q, k, v, 100.0, causal), scaled_dot_product_attention(q, k, v, is_causal=causal))


def test_a_sharp_query_is_answered_and_a_flat_one_is_not():
    _, k, v = inputs(20)
    q = torch.zeros_like(k)
    q[:, :, 7] = 10 * k[:, :, 3]
    found = prob_sparse(q, k, v, 0.5, causal=False)  # two queries of twenty
    assert torch.allclose(found[:, :, 7], scaled_dot_product_attention(q, k, v)[:, :, 7])
    assert torch.allclose(found[:, :, 0], v.mean(2))
