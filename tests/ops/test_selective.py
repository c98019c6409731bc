"""Selective scan: the memory-lean form against the loop, with gradients of everything."""

import pytest
import torch

from runnel.lineage import Lineage
from runnel.ops.selective import reference, selective_scan

from .support import check_tree, normal, same_with_gradients


def inputs(length: int):
    x, dt = normal(2, length, 5), normal(2, length, 5, seed=1).detach().exp().requires_grad_()
    a = (-normal(5, 3, seed=2).detach().exp()).requires_grad_()
    return [x, dt, a, normal(2, length, 3, seed=3), normal(2, length, 3, seed=4), normal(2, 5, 3, seed=5)]


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 40])
def test_equals_the_loop(length):
    args = inputs(length)
    same_with_gradients(selective_scan(*args, Lineage.sequence(2, length)), reference(*args), args)


def test_tree():
    x, dt, a, b, c, memory = inputs(9)
    check_tree(
        lambda x, dt, b, c, memory, lineage: selective_scan(x, dt, a, b, c, memory, lineage),
        lambda x, dt, b, c, memory: reference(x, dt, a, b, c, memory),
        [x, dt, b, c],
        memory,
    )


def test_packed_rows_with_gradients():
    x, dt, a, b, c, memory = inputs(20)
    segments = torch.tensor([[0] * 7 + [1] * 13, [0] * 20])
    y, last = selective_scan(x, dt, a, b, c, memory, Lineage.packed(segments))
    zero = torch.zeros_like(memory)
    first = reference(*[z[:1, :7] for z in (x, dt)], a, b[:1, :7], c[:1, :7], memory[:1])[0]
    second, end = reference(*[z[:1, 7:] for z in (x, dt)], a, b[:1, 7:], c[:1, 7:], zero[:1])
    whole, other = reference(x[1:], dt[1:], a, b[1:], c[1:], memory[1:])
    expected = torch.cat([torch.cat([first, second], dim=1), whole]), torch.cat([end, other])
    same_with_gradients((y, last), expected, [x, dt, a, b, c, memory])


def test_nothing_of_size_length_times_state_is_kept():
    """What backward keeps grows with (B, T, D) and with one state per chunk, not with (B, T, D, N)."""
    kept = []
    args = [torch.randn(1, 512, 8), torch.rand(1, 512, 8), -torch.rand(8, 64), torch.randn(1, 512, 64)]
    args += [torch.randn(1, 512, 64), torch.zeros(1, 8, 64)]
    args = [x.requires_grad_() for x in args]
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        selective_scan(*args, Lineage.sequence(1, 512))
    assert sum(kept) < 512 * 8 * 64 / 2
