"""What the tests of tree builders share: a row's draws, a drafter's law after every path, and how to grow one tree."""

from functools import cache

import torch

from runnel import catalog
from runnel.decoders import sample
from runnel.rows import FreshDraw, Row, RowDraw
from runnel.trees import Sketch, TreeBuilder, acceptance_head, grow_all
from tests.decoding.support import sharp


def draws(seed=0, temperature=1.0, **options):
    """The row's own way to draw, and that of rules that accept by chance."""
    decoder = sample.Sample(sample.Config(temperature=temperature, **options))
    row = Row(0, seed, [0], 7, 50, frozenset(), decoder)
    return RowDraw(row), FreshDraw(row)


def head():
    """An acceptance head with fixed weights, that is not of one mind."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = acceptance_head.Head(width=8, layers=2).double()
    with torch.no_grad():
        made.leave.weight.mul_(6.0)
    return made


def law(path):
    return _law(tuple(path))


@cache
@torch.no_grad()
def _law(path):
    return sharp(scale=6.0)(torch.tensor([[0, *path]]))[0][0, -1]


def grown(config, draw, budget, law=law):
    """The draft, its paths, and how many calls of the drafter it took. Every node's logits are those of its place."""
    sketch, calls = Sketch(), []

    def after(asked):
        calls.append(asked)
        return {row: torch.stack([law(sketch.path(node)) for node in nodes]) for row, nodes in asked.items()}

    grow_all(catalog.make("trees", TreeBuilder, config), [sketch], [draw], [budget], after)
    draft = sketch.draft()
    paths = [tuple(sketch.path(node)) for node in range(len(draft.tokens))]
    for path, logits in zip(paths, draft.logits, strict=True):
        torch.testing.assert_close(logits, law(path[:-1]))
    assert all(len(path) <= budget for path in paths)
    return draft, paths, len(calls)
