"""Conjugate gradients against a dense solve, with gradients."""

import torch

from runnel.ops.conjugate_gradient import solve

from .support import close, normal


def systems(rank: int = 5):
    factor, b = normal(4, 6, rank), normal(4, 6, seed=9)
    return factor, b, factor @ factor.mT + 0.3 * torch.eye(6, dtype=torch.float64)


def test_equals_a_dense_solve_with_gradients():
    factor, b, a = systems()
    x = solve(lambda v: (a @ v[..., None])[..., 0], b, iterations=12)
    expected = torch.linalg.solve(a, b)
    close(x, expected)
    weights = normal(4, 6, seed=2, grad=False)
    got = torch.autograd.grad((x * weights).sum(), [factor, b], retain_graph=True)
    want = torch.autograd.grad((expected * weights).sum(), [factor, b])
    for g, w in zip(got, want, strict=True):
        close(g, w)


def test_as_many_products_as_there_are_distinct_eigenvalues():
    """Rank 1 plus a multiple of the identity: two products; one is not enough."""
    factor, b, _ = systems(rank=1)
    for iterations, exact in ((1, False), (2, True)):
        x = solve(lambda v: factor[..., 0] * (factor[..., 0] * v).sum(-1, keepdim=True) + 0.3 * v, b, iterations)
        a = factor @ factor.mT + 0.3 * torch.eye(6, dtype=torch.float64)
        assert ((x - torch.linalg.solve(a, b)).abs().max() < 1e-9) == exact


def test_a_right_side_of_zero():
    _, b, a = systems()
    x = solve(lambda v: (a @ v[..., None])[..., 0], 0 * b, iterations=5)
    assert torch.equal(x, torch.zeros_like(x))
