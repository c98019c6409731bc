"""The learner: closed gradients and mini-batches at once against automatic differentiation, token after token."""

from itertools import pairwise

import pytest
import torch

from runnel.lineage import Lineage
from runnel.ops.learner import Learner, Trained, learn, reference

from .support import PARENTS, PATHS, close, normal


def made(layers: int, normed: bool):
    widths = [3, *[5] * (layers - 1), 3]
    initial = tuple(normal(2, i + 1, o, seed=i) for i, o in pairwise(widths))
    norm = normal(2, 2, 3, seed=9) if normed else None
    return Learner(initial, norm)


def tokens(length: int):
    q, k, v, raw = [normal(2, length, 2, 3, seed=s) for s in range(4)]
    rates = torch.stack([0.1 * raw[..., 0].sigmoid(), -(raw[..., 1] ** 2), raw[..., 2].sigmoid().log()], dim=-1)
    return [q, k, v, rates]


def zero(learner: Learner) -> Trained:
    weights = tuple(torch.zeros(2, *w.shape, dtype=torch.float64) for w in learner.initial)
    return Trained(weights, weights, weights)


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize(("layers", "batch"), [(1, 4), (2, 4), (3, 1)])
def test_equals_the_loop_with_gradients(layers, normed, batch):
    learner, inputs = made(layers, normed), tokens(11)
    y, _ = learn(learner, *inputs, batch, zero(learner), Lineage.sequence(2, 11))
    expected = reference(learner, *inputs, batch)
    close(y, expected)
    leaves = [*inputs, *learner.initial, *([] if learner.norm is None else [learner.norm])]
    weights = normal(2, 11, 2, 3, seed=5, grad=False)
    got = torch.autograd.grad((y * weights).sum(), leaves, retain_graph=True, allow_unused=True)
    want = torch.autograd.grad((expected * weights).sum(), leaves, allow_unused=True)
    for g, w in zip(got, want, strict=True):
        close(g, w)


def test_a_tree_equals_its_paths_from_the_middle_of_a_mini_batch():
    learner, begun, inputs = made(2, True), tokens(2), [x + 0.1 for x in tokens(9)]
    _, memory = learn(learner, *begun, 4, zero(learner), Lineage.sequence(2, 2))
    two = torch.full((2,), 2)
    tree = Lineage.tree(torch.tensor(PARENTS).expand(2, -1)).at(two)
    y, pending = learn(learner, *inputs, 4, memory, tree)
    for path in PATHS:
        chain = Lineage.sequence(2, len(path)).at(two)
        expected, last = learn(learner, *[x[:, path] for x in inputs], 4, memory, chain)
        close(y[:, path[-1]], expected[:, -1])
        committed = pending.commit(torch.tensor(path).expand(2, -1), chain)
        close(committed.now[1], last.now[1])
        close(committed.base[0], last.base[0])
