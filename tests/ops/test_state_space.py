"""Full time-invariant systems against their loop: chunks, steps, padded and packed rows, trees, gradients."""

import pytest
import torch

from runnel.lineage import Lineage
from runnel.ops.state_space import reference, state_space_scan

from .support import check_tree, close, normal, same_with_gradients


def system():
    """Far from normal: large entries on one side of the diagonal, eigenvalues within the unit circle."""
    a = 0.3 * normal(3, 4, 4, grad=False).tril() + normal(3, 4, 4, seed=1, grad=False).triu(1) * 0.1
    return [a.requires_grad_(), normal(3, 4, seed=2), normal(3, 2, 4, seed=3)], normal(2, 3, 4, seed=4)


@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 64, 150])
def test_equals_the_loop(length):
    matrices, memory = system()
    u = normal(2, length, 3)
    made = state_space_scan(u, *matrices, memory, Lineage.sequence(2, length))
    same_with_gradients(made, reference(u, *matrices, memory), [u, *matrices, memory])


def test_trees():
    matrices, memory = system()
    check_tree(
        lambda u, memory, lineage: state_space_scan(u, *matrices, memory, lineage),
        lambda u, memory: reference(u, *matrices, memory),
        [normal(2, 9, 3)],
        memory,
    )


def test_packed_and_padded_rows_over_several_chunks():
    matrices, memory = system()
    u = normal(2, 100, 3)
    segments = torch.cat([torch.zeros(40), torch.full((3,), -1), torch.ones(50), torch.full((7,), -1)]).long()
    y, last = state_space_scan(u, *matrices, memory, Lineage.packed(segments.expand(2, -1)))
    close(y[:, :40], reference(u[:, :40], *matrices, memory)[0])
    expected, end = reference(u[:, 43:93], *matrices, torch.zeros_like(memory))
    close(y[:, 43:93], expected)
    close(last, end)
