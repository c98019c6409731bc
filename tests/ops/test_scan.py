"""Diagonal scan: real of either sign, complex, zero; against the loop, with gradients, from any state."""

import pytest
import torch

from runnel.lineage import Lineage
from runnel.ops.scan import complex_scan, diagonal_scan, reference

from .support import check_tree, close, normal, same_with_gradients


def coefficients(kind: str, *shape: int):
    raw, b, h = normal(*shape), normal(*shape, seed=1), normal(shape[0], *shape[2:], seed=2)
    if kind == "positive":
        return raw.sigmoid(), b, h
    if kind == "negative":
        return raw.tanh(), b, h
    if kind == "zero":
        return raw.tanh() * (raw > 0), b, h
    return torch.polar(raw.sigmoid(), normal(*shape, seed=3)), torch.complex(b, raw), torch.complex(h, 2 * h)


@pytest.mark.parametrize("kind", ["positive", "negative", "zero", "complex"])
@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 200])
def test_equals_the_loop(kind, length):
    a, b, h = coefficients(kind, 2, length, 3)
    leaves = [x.detach().requires_grad_() for x in (a, b, h)]
    same_with_gradients(diagonal_scan(*leaves, Lineage.sequence(2, length)), reference(*leaves), leaves)


@pytest.mark.parametrize("kind", ["positive", "negative", "zero", "complex"])
def test_matrix_states_and_trees(kind):
    a, b, h = [x.detach().requires_grad_() for x in coefficients(kind, 2, 9, 3, 4)]
    check_tree(diagonal_scan, reference, [a, b], h)


def test_a_decay_that_underflows_leaves_no_nan():
    """Products of a of 1e-200 vanish; nothing is divided by them."""
    a = torch.full((1, 130, 2), 1e-200, dtype=torch.float64, requires_grad=True)
    b = normal(1, 130, 2)
    y, last = diagonal_scan(a, b, torch.ones(1, 2, dtype=torch.float64), Lineage.sequence(1, 130))
    close(last, b[:, -1])
    assert torch.autograd.grad(y.sum(), a)[0].isfinite().all()


def test_a_complex_memory_is_kept_as_pairs():
    """Sequence and tree: the same scan, the memory in real numbers."""
    a, b, h = [x.detach().requires_grad_() for x in coefficients("complex", 2, 9, 3)]
    pairs = torch.view_as_real(h.detach()).requires_grad_()

    def loop(a, b, memory):
        states, last = reference(a, b, torch.view_as_complex(memory))
        return states, torch.view_as_real(last)

    same_with_gradients(complex_scan(a, b, pairs, Lineage.sequence(2, 9)), loop(a, b, pairs), [a, b, pairs])
    check_tree(complex_scan, loop, [a, b], pairs)


def test_a_memory_read_from_a_file_may_lie_anywhere():
    """Pairs of float64 at an address that is no multiple of 16, where a complex view would crash the process."""
    a, b, h = [x.detach() for x in coefficients("complex", 2, 5, 3)]
    storage = torch.empty(2 * h.numel() + 1, dtype=torch.float64)
    pairs = storage[1:].view(2, 3, 2).copy_(torch.view_as_real(h))
    assert pairs.data_ptr() % 16 == 8
    close(complex_scan(a, b, pairs, Lineage.sequence(2, 5))[0], reference(a, b, h)[0])
