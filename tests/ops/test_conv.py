"""Causal convolution: tails shorter and longer than the input, packed rows, trees, width one."""

import pytest
import torch

from runnel.lineage import Lineage
from runnel.ops.conv import causal_conv, reference, shift

from .support import check_tree, close, normal, same_with_gradients


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 9])
def test_equals_the_loop(width, length):
    args = [normal(2, length, 3), normal(3, width, seed=1), normal(3, seed=2), normal(2, width - 1, 3, seed=3)]
    same_with_gradients(causal_conv(*args, Lineage.sequence(2, length)), reference(*args), args)
    x, weight, _, tail = args
    same_with_gradients(
        causal_conv(x, weight, None, tail, Lineage.sequence(2, length)), reference(x, weight, None, tail), [x, weight]
    )


@pytest.mark.parametrize("width", [2, 4, 6])
def test_tree_reads_ancestors(width):
    weight, bias = normal(3, width, seed=1), normal(3, seed=2)
    check_tree(
        lambda x, tail, lineage: causal_conv(x, weight, bias, tail, lineage),
        lambda x, tail: reference(x, weight, bias, tail),
        [normal(2, 9, 3)],
        normal(2, width - 1, 3, seed=3),
    )


def test_packed_documents_shorter_than_the_filter():
    x, weight, tail = normal(1, 6, 3), normal(3, 4, seed=1), normal(1, 3, 3, seed=2)
    y, last = causal_conv(x, weight, None, tail, Lineage.packed(torch.tensor([[0, 1, 1, 2, 2, -1]])))
    zero = torch.zeros_like(tail)
    close(y[:, :1], reference(x[:, :1], weight, None, tail)[0])
    close(y[:, 1:3], reference(x[:, 1:3], weight, None, zero)[0])
    expected, end = reference(x[:, 3:5], weight, None, zero)
    close(y[:, 3:5], expected)
    close(last, end)


def test_shift_is_the_parent():
    x, tail = normal(1, 4, 2), normal(1, 1, 2, seed=1)
    y, last = shift(x, tail, Lineage.sequence(1, 4))
    close(y, torch.cat([tail, x[:, :3]], dim=1))
    close(last, x[:, 3:])
