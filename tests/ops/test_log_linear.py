"""Log-linear scan: chunks, pieces, trees and commits equal the definition; the memory is a binary counter."""

import pytest
import torch

from runnel.lineage import Lineage
from runnel.ops.log_linear import log_linear_scan, reference
from runnel.ops.outer import outer_scan

from .support import PARENTS, PATHS, close, normal


def inputs(length: int, levels: int = 6):
    q, k, v = [normal(2, length, 2, 3, seed=seed) for seed in range(3)]
    log_decay = (-0.1 * normal(2, length, 2, seed=3, grad=False) ** 2).requires_grad_()
    scales = (normal(2, length, 2, levels, seed=4, grad=False) ** 2).requires_grad_()
    return [q, k, v, log_decay, scales]


def empty(levels: int = 6) -> torch.Tensor:
    return torch.zeros(2, levels - 1, 2, 3, 3, dtype=torch.float64)


def at(lineage: Lineage, seen: int) -> Lineage:
    return lineage.at(torch.full((2,), seen))


@pytest.mark.parametrize("levels", [2, 6, 12])
@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 150])
def test_equals_the_definition(length, levels):
    args = inputs(length, levels)
    y, _ = log_linear_scan(*args, empty(levels), Lineage.sequence(2, length))
    expected = reference(*args)
    close(y, expected)
    for got, want in zip(*[torch.autograd.grad(z.sin().sum(), args) for z in (y, expected)], strict=True):
        close(got, want)


@pytest.mark.parametrize("cuts", [[1], [37], [64], [63, 1, 5]])
def test_pieces_equal_the_whole(cuts):
    args, memory, seen, pieces = inputs(150), empty(), 0, []
    for size in [*cuts, 150 - sum(cuts)]:
        piece = [x[:, seen : seen + size] for x in args]
        y, memory = log_linear_scan(*piece, memory, at(Lineage.sequence(2, size), seen))
        pieces.append(y)
        seen += size
    close(torch.cat(pieces, dim=1), reference(*args))
    close(memory, log_linear_scan(*args, empty(), Lineage.sequence(2, 150))[1])


@pytest.mark.parametrize("seen", [0, 7, 21])
def test_tree(seen):
    before, args = inputs(21), inputs(9)
    memory = empty()
    if seen:
        memory = log_linear_scan(*[x[:, :seen] for x in before], memory, Lineage.sequence(2, seen))[1]
    tree = at(Lineage.tree(torch.tensor(PARENTS).expand(2, -1)), seen)
    y, pending = log_linear_scan(*args, memory, tree)
    for path in PATHS:
        chain = at(Lineage.sequence(2, len(path)), seen)
        expected, last = log_linear_scan(*[x[:, path] for x in args], memory, chain)
        close(y[:, path[-1]], expected[:, -1])
        close(pending.commit(torch.tensor(path).expand(2, -1), chain), last)


def test_the_memory_is_a_binary_counter():
    """After s tokens the buckets in use are the bits of s, and they add up to the plain outer-product memory."""
    args = inputs(45)
    for seen in (1, 6, 13, 31, 45):
        part = [x[:, :seen] for x in args]
        _, memory = log_linear_scan(*part, empty(), Lineage.sequence(2, seen))
        used = [bool(bucket.abs().max() > 0) for bucket in memory.transpose(0, 1)]
        assert used[:4] == [bool(seen >> bit & 1) for bit in range(4)] and used[4] == (seen >= 16)
        plain = outer_scan(*part[:4], torch.zeros(2, 2, 3, 3, dtype=torch.float64), Lineage.sequence(2, seen))[1]
        close(memory.sum(1), plain)
