"""Feature maps: their inner products are the functions of inner products that they promise, gradients included."""

import torch

from runnel.ops.features import pairs, taylor

from .support import close, normal


def test_pairs_square_the_inner_product():
    x, y = normal(2, 30, 5), normal(2, 30, 5, seed=1)
    features, square = (pairs(x) * pairs(y)).sum(-1), (x * y).sum(-1) ** 2
    close(features, square)
    close(torch.autograd.grad(features.sum(), x)[0], torch.autograd.grad(square.sum(), x)[0])
    assert pairs(x).shape[-1] == 15


def test_taylor_is_the_series_of_the_exponential():
    x, y = normal(2, 30, 16), normal(2, 30, 16, seed=1)
    s = (x * y).sum(-1) / 4
    close((taylor(x) * taylor(y)).sum(-1), 1 + s + s**2 / 2)
