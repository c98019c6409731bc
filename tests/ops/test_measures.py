import math

import pytest
import torch

from runnel.ops.measures import distinct, isotropy, ngrams, reference, repetition
from tests.ops.support import normal


def test_ngrams_by_hand():
    assert ngrams([1, 2, 1], 2) == [(1, 2), (2, 1)]
    assert ngrams([1, 2], 3) == []
    with pytest.raises(ValueError, match="n-grams need n >= 1; got 0"):
        ngrams([1], 0)


def test_repetition_and_distinct_ngrams_by_hand():
    assert repetition([1, 2, 3, 4, 1, 2, 3, 4], 4) == pytest.approx(1 / 5)  # five, of which four are distinct
    assert repetition([7] * 10, 4) == pytest.approx(6 / 7)
    assert repetition(range(10), 4) == repetition([1, 2], 4) == 0.0
    assert distinct([[1, 2, 3], [1, 2, 4]], 2) == pytest.approx(3 / 4)
    assert distinct([[1, 2, 3], [4, 5, 6]], 2) == 1.0


def test_isotropy_is_that_of_all_pairs_and_finds_a_planted_direction():
    hidden = normal(12, 5, grad=False)
    assert isotropy(hidden) == pytest.approx(reference(hidden), abs=1e-12)
    assert isotropy(torch.eye(6)) == pytest.approx(1.0)
    assert isotropy(torch.ones(6, 3)) == pytest.approx(0.0)
    cosine = 0.7  # every vector has this share of one direction, and a direction of its own
    planted = torch.cat([torch.full((8, 1), math.sqrt(cosine)), math.sqrt(1 - cosine) * torch.eye(8)], dim=1)
    scaled = planted * torch.arange(1, 9)[:, None]  # lengths do not matter
    assert isotropy(scaled) == pytest.approx(1 - cosine, abs=1e-6)
    with pytest.raises(ValueError, match="at least two; got 1"):
        isotropy(torch.ones(1, 3))
