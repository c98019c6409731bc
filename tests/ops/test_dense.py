"""Dense linear scan: against the loop, with gradients, from any state, singular matrices included."""

import pytest
import torch

from runnel.lineage import Lineage
from runnel.ops.dense import dense_scan, reference

from .support import check_tree, close, normal, same_with_gradients


@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 100])
def test_equals_the_loop(length):
    a = (normal(2, length, 3, 4, 4, grad=False) / 3).requires_grad_()
    b, h = normal(2, length, 3, 4, seed=1), normal(2, 3, 4, seed=2)
    same_with_gradients(dense_scan(a, b, h, Lineage.sequence(2, length)), reference(a, b, h), [a, b, h])


def test_trees():
    check_tree(dense_scan, reference, [normal(2, 9, 3, 4, 4), normal(2, 9, 3, 4, seed=1)], normal(2, 3, 4, seed=2))


def test_padding_keeps_the_state_and_documents_are_apart():
    a, b, h = normal(1, 70, 2, 3, 3, grad=False) / 3, normal(1, 70, 2, 3, seed=1), normal(1, 2, 3, seed=2)
    valid = (torch.arange(70) % 3 > 0)[None]
    _, last = dense_scan(a, b, h, Lineage.padded(valid))
    close(last, reference(a[:, valid[0]], b[:, valid[0]], h)[1])
    states, _ = dense_scan(a, b, h, Lineage.packed((torch.arange(70) >= 40).long()[None]))
    close(states[:, 40:], reference(a[:, 40:], b[:, 40:], torch.zeros_like(h))[0])
