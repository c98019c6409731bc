"""Newton's method over time: a nonlinear cell along a whole sequence at once, by linear scans, exact once it converged.

"Parallelizing non-linear sequential models over the sequence length" (2023, arXiv:2309.12252, DEER); "ParaRNN:
Unlocking Parallel Training of Nonlinear RNNs for Large Language Models" (2025, arXiv:2510.21450).

h_t = f(x_t, h_p) for all t is one system of equations. Around a guess of all states it is linear,

    h_t = J_t h_p + (f(x_t, g_p) - J_t g_p),   J_t = df/dh at the guess g_p of the parent's state,

which is a `dense_scan`; its solution is the next guess. Errors are squared in every round, and at least one more state
of the row is exact after each. The gradient is that of the last round, in which J is a constant and f is not: the
implicit one, whatever the rounds before it did.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Shaped
from torch import Tensor

from runnel.lineage import Lineage
from runnel.ops.dense import CHUNK, dense_scan
from runnel.ops.precision import widen
from runnel.ops.unroll import Step, unroll
from runnel.state import Memory, leaves, map_memory

LIMIT = 40


class Report(NamedTuple):
    """iterations: rounds of linearisation. change: the largest of the last one. sequential: steps one after the other
    that were taken in all, where the loop takes as many as there are tokens.
    """

    iterations: int
    change: float
    converged: bool
    sequential: int


def unroll_by_newton(
    step: Step, inputs: tuple[Shaped[Tensor, "B T ..."], ...], memory: Memory, lineage: Lineage
) -> tuple[Shaped[Tensor, "B T ..."], Memory]:
    """As `unroll`: in parallel along chains, and by the loop where that does not converge, and on trees."""
    if lineage.is_tree or lineage.part is not None or lineage.length == 1:
        return unroll(step, inputs, memory, lineage)
    y, last, _ = newton(step, inputs, memory, lineage)
    return y, last


def newton(
    step: Step,
    inputs: tuple[Shaped[Tensor, "B T ..."], ...],
    memory: Memory,
    lineage: Lineage,
    limit: int = LIMIT,
) -> tuple[Shaped[Tensor, "B T ..."], Memory, Report]:
    """Outputs and last memory of a chain, and what it took: after `limit` rounds without convergence, the loop.

    The memory of a row should be small: its Jacobians are full, and their products cost its third power.
    """
    inputs = tuple(widen(x) for x in inputs)
    with torch.autocast(inputs[0].device.type, enabled=False):
        cell = _Cell(step, inputs, memory, lineage)
        with torch.no_grad():
            states, report = cell.solve(limit)
        if not report.converged:
            y, last = unroll(step, inputs, memory, lineage)
            return y, last, report._replace(sequential=report.sequential + lineage.length)
        states = cell.round(states.detach())
        y, _ = cell.advance(cell.before(states))
        return y, cell.unpack(states[:, -1]), report


class _Cell:
    """A step along one chain, its memory as one vector (B, T, n)."""

    def __init__(self, step: Step, inputs: tuple[Tensor, ...], memory: Memory, lineage: Lineage) -> None:
        self.step, self.lineage, self.like = step, lineage, memory
        self.inputs = tuple(x.flatten(0, 1) for x in inputs)
        self.start = torch.cat([leaf.flatten(1) for leaf in leaves(memory)], dim=1)

    def solve(self, limit: int) -> tuple[Tensor, Report]:
        """All states from the guess that nothing ever happens; the change of a round bounds the error before it."""
        states = self.start[:, None].expand(-1, self.lineage.length, -1)
        close = math.sqrt(torch.finfo(states.dtype).eps)  # the error after it, and the last round, are its square
        change, count = math.inf, 0
        while change > close and count < limit:
            fresh = self.round(states)
            change, count, states = float(((fresh - states).abs() / (1 + fresh.abs())).max()), count + 1, fresh
            if not math.isfinite(change):
                break
        return states, Report(count, change, change <= close, (count + 1) * sequential_steps(self.lineage.length))

    def round(self, states: Tensor) -> Tensor:
        """The states of the cell made linear around these."""
        before = self.before(states).detach()
        jacobian = self.jacobian(before)
        after = self.advance(before)[1]
        offset = after - (jacobian @ before[..., None])[..., 0]
        return dense_scan(jacobian[:, :, None], offset[:, :, None], self.start[:, None], self.lineage)[0][:, :, 0]

    def advance(self, before: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs of, and states after, one step from the given state before every token."""
        y, after = self.step(self.inputs, self.unpack(before.flatten(0, 1)))
        shape = before.shape[:2]
        return y.unflatten(0, shape), torch.cat([x.flatten(1) for x in leaves(after)], dim=1).unflatten(0, shape)

    def jacobian(self, before: Tensor) -> Tensor:
        """(B, T, n, n): the rows of all tokens side by side."""
        with torch.enable_grad():
            leaf = before.detach().requires_grad_()
            after = self.advance(leaf)[1]
        size = before.shape[-1]
        rows = torch.eye(size, dtype=after.dtype, device=after.device)[:, None, None].expand(-1, *after.shape)
        return torch.autograd.grad(after, leaf, rows, is_grads_batched=True)[0].movedim(0, -2)

    def before(self, states: Tensor) -> Tensor:
        """The state before every token: zero where a document begins."""
        before = torch.cat([self.start[:, None], states[:, :-1]], dim=1)
        return before if self.lineage.reset is None else torch.where(self.lineage.reset[..., None], 0, before)

    def unpack(self, vector: Tensor) -> Memory:
        """A memory of as many rows as the vectors (M, n) are."""
        sizes = [leaf[0].numel() for leaf in leaves(self.like)]
        parts = iter(vector.split(sizes, dim=-1))
        return map_memory(lambda leaf: next(parts).reshape(-1, *leaf.shape[1:]), self.like)


def sequential_steps(length: int) -> int:
    """Steps of one round that wait for each other: within a chunk, from chunk to chunk, and that of the cell itself."""
    return 1 + (length if length <= CHUNK else CHUNK + -(-length // CHUNK))


EVALUATIONS = {"loop": unroll, "newton": unroll_by_newton}
"""Ways to take a cell along a chain, of one result."""
