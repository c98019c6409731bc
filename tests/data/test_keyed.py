"""The shuffle without a table is a bijection, another one for each key."""

from __future__ import annotations

import numpy as np
import pytest

from runnel.data._keyed import permute


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17, 64, 1000, 65_537])
def test_it_is_a_bijection(size: int) -> None:
    for epoch in range(3):
        assert np.array_equal(np.sort(permute(np.arange(size), size, seed=1, epoch=epoch)), np.arange(size))


def test_places_one_by_one_give_the_same() -> None:
    together = permute(np.arange(100), 100, seed=2, epoch=5)
    assert [int(permute(np.array([n]), 100, seed=2, epoch=5)[0]) for n in range(100)] == together.tolist()


def test_huge_sizes_need_no_table() -> None:
    size = 10**15
    shuffled = permute(np.arange(10_000), size, seed=0, epoch=0)
    assert len(set(shuffled.tolist())) == 10_000
    assert shuffled.min() >= 0
    assert shuffled.max() < size
    assert 0.45 < shuffled.mean() / size < 0.55


def test_keys_matter_and_neighbours_are_separated() -> None:
    size = 5000
    first, second, other = (permute(np.arange(size), size, *key) for key in ((0, 0), (0, 1), (1, 0)))
    for a, b in ((first, second), (first, other), (first, np.arange(size))):
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.06
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.06
    assert (first == second).sum() < 20
