from collections import Counter

import pytest
import torch

from runnel.trees import without_replacement
from tests.decoding.support import CHI_SQUARE_99, chi_square
from tests.trees.support import draws, grown, law


def test_siblings_differ_and_every_level_is_full():
    for seed in range(5):
        for draw in draws(seed):
            draft, paths, calls = grown(without_replacement.Config((3, 2, 1)), draw, 5)
            assert Counter(map(len, paths)) == {1: 3, 2: 6, 3: 6}
            assert len(set(paths)) == len(paths)
            assert (calls, draft.independent) == (3, False)


def test_ordered_siblings_follow_the_law_of_drawing_one_after_another():
    q = law(()).softmax(-1)[:3].log()
    expected = without_replacement.reference(q.softmax(-1), 2)
    assert abs(sum(expected.values()) - 1) < 1e-12
    counts = Counter()
    for seed in range(1500):
        _, paths, _ = grown(without_replacement.Config((2,)), draws(seed)[1], 1, lambda path: q)
        counts[tuple(path[0] for path in paths)] += 1
    assert chi_square(counts, expected) < {5: 15.09, **CHI_SQUARE_99}[len(expected) - 1]


def test_the_first_path_is_the_chain():
    row, _ = draws(3)
    _, paths, _ = grown(without_replacement.Config((2, 2)), row, 2)
    _, chain, _ = grown("chain", row, 2)
    assert set(chain) <= set(paths)
    assert paths[0] == chain[0]


def test_every_path_has_noise_of_its_own():
    """A rule that accepts by chance needs branches that say nothing about each other."""
    row, fresh = draws(1)
    flat = torch.zeros(50, dtype=torch.float64)
    assert not torch.equal(fresh.scores(flat, 1, [3]), fresh.scores(flat, 1, [4]))
    assert not torch.equal(fresh.scores(flat, 1, [3]), fresh.scores(flat, 1, [3], branch=1))
    assert torch.equal(row.scores(flat, 1, [3]), row.scores(flat, 1, [4]))
    assert not torch.equal(row.scores(flat, 1, [3]), row.scores(flat, 1, [3], branch=1))


def test_bad_branching_is_refused():
    for branching in ((), (2, 0)):
        with pytest.raises(ValueError, match="branching must be numbers of at least 1"):
            without_replacement.Config(branching)
