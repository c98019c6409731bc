import pytest

from runnel.trees import independent
from tests.trees.support import draws, grown, law


def test_it_is_the_chains_of_the_definition():
    repeated = 0
    for seed in range(10):
        for draw in draws(seed):
            draft, paths, calls = grown(independent.Config(3), draw, 3)
            chains = independent.reference(law, draw, 3, 3)
            assert sorted(paths) == sorted(tuple(chain[: i + 1]) for chain in chains for i in range(3))
            assert (calls, draft.independent) == (3, True)
            repeated += len(set(paths)) < len(paths)
            below = [parent for parent in draft.parents if parent >= 0]
            assert all(paths.index(paths[parent]) == parent for parent in below)  # the first of equal siblings goes on
    assert repeated > 0


def test_one_chain_is_a_chain():
    for draw in draws(2):
        assert grown(independent.Config(1), draw, 4)[1] == grown("chain", draw, 4)[1]
    with pytest.raises(ValueError, match="chains must be at least 1; got 0"):
        independent.Config(0)
