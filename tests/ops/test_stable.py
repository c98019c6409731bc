"""Stabilised weights: chunks, steps, trees, padding and resets equal plain exponentials, whatever their size."""

import pytest
import torch

from runnel.lineage import Lineage
from runnel.ops.stable import Level, reference, weigh

from .support import PARENTS, PATHS, close, normal


def inputs(length: int, scale: float = 1.0, decay: float = 0.3):
    log_weight = (scale * normal(2, length, 3, grad=False)).requires_grad_()
    log_decay = (-decay * normal(2, length, 3, seed=1, grad=False) ** 2).requires_grad_()
    return log_weight, log_decay


def empty() -> Level:
    return Level(torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64))


def compare(actual, expected, inputs):
    """Fields, memories and the gradients of what is defined whatever the unit: shares of the total."""
    for a, b in zip([*actual[0], *actual[1]], [*expected[0], *expected[1]], strict=True):
        close(a, b)
    grads = [
        torch.autograd.grad((w.write / w.total).pow(2).sum() + w.log_keep.sum(), inputs) for w, _ in (actual, expected)
    ]
    for a, b in zip(*grads, strict=True):
        close(a, b)


@pytest.mark.parametrize("scale", [1.0, 1e3])
@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 200])
def test_equals_the_loop(length, scale):
    tokens = inputs(length, scale)
    for memory in (empty(), reference(*inputs(5, scale), empty())[1]):
        compare(weigh(*tokens, memory, Lineage.sequence(2, length)), reference(*tokens, memory), tokens)


def test_totals_are_those_of_plain_exponentials():
    log_weight, log_decay = inputs(150)
    weights, level = weigh(log_weight, log_decay, empty(), Lineage.sequence(2, 150))
    total = torch.zeros(2, 3, dtype=torch.float64)
    for t in range(150):
        before, total = total, log_decay[:, t].exp() * total + log_weight[:, t].exp()
        close(weights.maximum[:, t].exp() * weights.total[:, t], total)
        close(weights.write[:, t] / weights.total[:, t], log_weight[:, t].exp() / total)
        if t:
            ratio = log_decay[:, t].exp() * before / total
            close(weights.log_keep[:, t].exp() * weights.total[:, t - 1] / weights.total[:, t], ratio)
    close(level.maximum.exp() * level.total, total)


@pytest.mark.parametrize("sign", [1, -1])
def test_logits_of_a_thousand_in_float32(sign):
    log_weight = sign * 1e3 + normal(1, 300, 1, grad=False).float()
    weights, level = weigh(
        log_weight, torch.zeros_like(log_weight), Level(*torch.zeros(2, 1, 1)), Lineage.sequence(1, 300)
    )
    assert all(x.isfinite().all() for x in [*weights, *level])
    expected = (log_weight.double() - log_weight.double().logcumsumexp(1)).exp()
    close((weights.write / weights.total).double(), expected, bound=1e-3)  # float32 holds 1000 to 6e-5


def test_tree():
    log_weight, log_decay = inputs(9)
    memory = reference(*inputs(4), empty())[1]
    weights, pending = weigh(log_weight, log_decay, memory, Lineage.tree(torch.tensor(PARENTS).expand(2, -1)))
    for path in PATHS:
        expected, last = reference(log_weight[:, path], log_decay[:, path], memory)
        for a, b in zip(weights, expected, strict=True):
            close(a[:, path[-1]], b[:, -1])
        committed = pending.commit(torch.tensor(path).expand(2, -1), Lineage.sequence(2, len(path)))
        for a, b in zip(committed, last, strict=True):
            close(a, b)


def test_a_tree_that_does_not_branch():
    tokens, memory = inputs(9), reference(*inputs(4), empty())[1]
    weights, pending = weigh(*tokens, memory, Lineage.tree(torch.arange(-1, 8).expand(2, -1)))
    expected, last = weigh(*tokens, memory, Lineage.sequence(2, 9))
    for a, b in zip(weights, expected, strict=True):
        close(a, b)
    for a, b in zip(pending.commit(torch.arange(9).expand(2, -1), Lineage.sequence(2, 9)), last, strict=True):
        close(a, b)


def test_padding_and_resets():
    log_weight, log_decay = inputs(9, scale=30.0)
    segments = torch.tensor([[-1, 0, -1, 0, 0, 1, -1, 1, 1], [2, 2, 3, 3, 3, 3, 4, -1, -1]])
    begun = reference(*inputs(4), empty())[1]
    weights, level = weigh(log_weight, log_decay, begun, Lineage.packed(segments))
    for row, first in ((0, 0), (1, 2)):
        for document in segments[row].unique()[segments[row].unique() >= 0]:
            own = (segments[row] == document).nonzero()[:, 0]
            memory = begun if int(document) == first else empty()
            expected, last = reference(
                *[x[row : row + 1, own] for x in (log_weight, log_decay)], Level(*[x[row : row + 1] for x in memory])
            )
            for a, b in zip(weights, expected, strict=True):
                close(a[row, own], b[0])
    assert (weights.write[segments < 0] == 0).all() and (weights.log_keep[segments < 0] == 0).all()
    for a, b in zip(level, last, strict=True):
        close(a[1], b[0])
    for gradient in torch.autograd.grad(sum(w.sum() for w in weights), (log_weight, log_decay)):
        assert gradient.isfinite().all() and (gradient[segments < 0] == 0).all()


def test_nothing_but_padding_is_still_nothing():
    log_weight, log_decay = inputs(4, scale=1e4)
    weights, level = weigh(log_weight, log_decay, empty(), Lineage.padded(torch.zeros(2, 4, dtype=torch.bool)))
    assert (level.maximum == 0).all() and (level.total == 0).all()
    assert (weights.total > 0).all() and (weights.write == 0).all()
