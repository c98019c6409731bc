"""Newton over time against the loop: values, gradients, padded and packed rows, and the steps that wait for others."""

from typing import NamedTuple

import torch

from runnel.lineage import Lineage
from runnel.ops.newton import newton, unroll_by_newton
from runnel.ops.unroll import reference, unroll

from .support import close, normal


class Pair(NamedTuple):
    h: torch.Tensor
    c: torch.Tensor


W = 0.4 * normal(3, 3, seed=8, grad=False)


def step(inputs, memory):
    x, gate = inputs
    c = (memory.c * gate.sigmoid() + x + memory.h @ W).tanh()
    return c * memory.h.cos(), Pair((memory.h + c).tanh(), c)


def start(rows: int = 2) -> Pair:
    return Pair(normal(rows, 3, seed=5), normal(rows, 3, seed=6))


def test_equals_the_loop_with_gradients_in_fewer_steps():
    x, gate, memory = normal(2, 3000, 3), normal(2, 3000, 3, seed=1), start()
    y, last, report = newton(step, (x, gate), memory, Lineage.sequence(2, 3000))
    expected, end = reference(step, (x, gate), memory)
    close(y, expected, bound=1e-10)
    close(last.h, end.h, bound=1e-10)
    assert report.converged and report.iterations <= 15
    assert report.sequential < 2000, report
    weights = normal(2, 3000, 3, seed=2, grad=False)
    inputs = [x, gate, *memory]
    got = torch.autograd.grad((y * weights).sum() + last.c.sum(), inputs)
    want = torch.autograd.grad((expected * weights).sum() + end.c.sum(), inputs)
    for g, w in zip(got, want, strict=True):
        close(g, w)


def test_packed_and_padded_rows():
    x, gate, memory = normal(1, 80, 3), normal(1, 80, 3, seed=1), start(1)
    segments = torch.cat([torch.zeros(40), torch.full((3,), -1), torch.ones(30), torch.full((7,), -1)]).long()
    lineage = Lineage.packed(segments[None])
    y, last = unroll_by_newton(step, (x, gate), memory, lineage)
    expected, end = unroll(step, (x, gate), memory, lineage)
    close(y[:, segments >= 0], expected[:, segments >= 0])
    close(last.c, end.c)


def test_what_does_not_converge_is_looped_and_says_so():
    """A logistic map in its chaotic range: states far along depend on every digit of the first."""
    chaos = lambda inputs, h: (h, 3.99 * h * (1 - h) + 0 * inputs[0])  # noqa: E731
    x, memory = normal(1, 500, 1, grad=False), torch.full((1, 1), 0.3, dtype=torch.float64)
    y, last, report = newton(chaos, (x,), memory, Lineage.sequence(1, 500))
    assert not report.converged
    expected, end = reference(chaos, (x,), memory)
    assert torch.equal(y, expected) and torch.equal(last, end)


def test_a_linear_cell_takes_one_round_and_one_to_see_it():
    x, memory = normal(2, 200, 3), normal(2, 3, seed=1)
    y, _, report = newton(lambda inputs, h: (h, h @ W + inputs[0]), (x,), memory, Lineage.sequence(2, 200))
    assert report.iterations == 2 and report.converged
    close(y, reference(lambda inputs, h: (h, h @ W + inputs[0]), (x,), memory)[0])
