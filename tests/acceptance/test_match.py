import torch

from runnel.acceptance import match
from tests.decoding.support import walk_of

CHILDREN = [(1, 0), (2, 0), (1, 1), (0, 2), (2, 3), (2, 0)]


def test_it_walks_as_the_definition_does():
    lengths = set()
    for seed in range(200):
        logits = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        found, expected = (walk_of(CHILDREN, logits, seed=seed) for _ in range(2))
        match.Match(match.Config()).accept([found])
        match.reference(expected)
        assert (found.path, found.row.tokens) == (expected.path, expected.row.tokens)
        lengths.add(len(found.path))
    assert lengths == {1, 2, 3, 4}


def test_walks_of_one_call_are_walked_apart():
    logits = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    together = [walk_of(CHILDREN, logits, seed=seed) for seed in range(9)]
    match.Match(match.Config()).accept(together)
    for seed, walk in enumerate(together):
        alone = walk_of(CHILDREN, logits, seed=seed)
        match.reference(alone)
        assert walk.row.tokens == alone.row.tokens
