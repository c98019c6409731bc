"""Substeps against a loop over all of them: sequences, padded and packed rows, trees."""

import torch

from runnel.lineage import Lineage
from runnel.ops import outer
from runnel.ops.substeps import every_substep, refine, substeps

from .support import check_tree, close, normal, same_with_gradients


def tokens(length: int):
    q, k = normal(2, length, 3, 2, 4), normal(2, length, 3, 2, 4, seed=1)
    v, log_decay = normal(2, length, 3, 2, 5, seed=2), -(normal(2, length, 3, 2, seed=3, grad=False) ** 2)
    return [q, k, v, log_decay.requires_grad_()], normal(2, 2, 4, 5, seed=4)


def thrice(q, k, v, log_decay, memory, lineage):
    return substeps(outer.outer_scan, (q, k, v, log_decay), memory, lineage)


def loop(q, k, v, log_decay, memory):
    y, memory = outer.reference(*[x.flatten(1, 2) for x in (q, k, v, log_decay)], memory)
    return y.unflatten(1, (-1, 3))[:, :, -1], memory


def each(q, k, v, log_decay, memory, lineage):
    return every_substep(outer.outer_scan, (q, k, v, log_decay), memory, lineage)


def loop_of_each(q, k, v, log_decay, memory):
    y, memory = outer.reference(*[x.flatten(1, 2) for x in (q, k, v, log_decay)], memory)
    return y.unflatten(1, (-1, 3)), memory


def test_equals_the_loop_over_all_substeps():
    made, memory = tokens(30)
    same_with_gradients(thrice(*made, memory, Lineage.sequence(2, 30)), loop(*made, memory), [*made, memory])
    same_with_gradients(each(*made, memory, Lineage.sequence(2, 30)), loop_of_each(*made, memory), [*made, memory])


def test_trees():
    made, memory = tokens(9)
    check_tree(thrice, loop, made, memory)
    check_tree(each, loop_of_each, made, memory)


def test_packed_and_padded_rows():
    made, memory = tokens(7)
    y, last = thrice(*made, memory, Lineage.packed(torch.tensor([[0, 0, -1, 1, 1, 1, -1]] * 2)))
    close(y[:, :2], loop(*[x[:, :2] for x in made], memory)[0])
    expected, end = loop(*[x[:, 3:6] for x in made], torch.zeros_like(memory))
    close(y[:, 3:6], expected)
    close(last, end)


def test_a_refined_tree_hangs_children_below_the_last_substep():
    refined = refine(Lineage.tree(torch.tensor([[-1, 0, 0]])), 2)
    assert refined.parents.tolist() == [[-1, 0, 1, 2, 1, 4]]
