"""Feature maps: their inner products are the functions of inner products that they promise, gradients included."""

import torch

from runnel.ops.features import pairs

from .support import close, normal


def test_pairs_square_the_inner_product():
    x, y = normal(2, 30, 5), normal(2, 30, 5, seed=1)
    features, square = (pairs(x) * pairs(y)).sum(-1), (x * y).sum(-1) ** 2
    close(features, square)
    close(torch.autograd.grad(features.sum(), x)[0], torch.autograd.grad(square.sum(), x)[0])
    assert pairs(x).shape[-1] == 15
