import itertools
from collections import Counter

import pytest
import torch

from runnel.trees import stochastic_beam
from tests.decoding.support import chi_square
from tests.trees.support import draws, grown, law


def test_it_is_the_beam_of_the_definition():
    for seed in range(5):
        for draw in draws(seed):
            levels = stochastic_beam.reference(law, draw, 3, 3)
            _, paths, calls = grown(stochastic_beam.Config(3), draw, 3)
            assert paths == [path for level in levels for path, _ in level]
            assert calls == 3


def test_scores_below_a_node_fall_from_its_own():
    rng = torch.Generator().manual_seed(0)
    perturbed = torch.randn(6, dtype=torch.float64, generator=rng) * 20
    found = stochastic_beam.below(perturbed, -1.5)
    assert float(found.max()) == -1.5
    assert found.argsort().tolist() == perturbed.argsort().tolist()
    assert stochastic_beam.below(torch.tensor([-torch.inf, 0.0]), 2.0).tolist() == [-torch.inf, 2.0]


def test_a_level_is_drawn_without_replacement_among_all_paths():
    """Ordered pairs of paths of two tokens, against drawing one path after another: chi-square, 11 degrees."""
    q = torch.tensor([0.7, 0.3], dtype=torch.float64).log()
    paths = list(itertools.product(range(2), repeat=2))
    p = {path: float(q[list(path)].sum().exp()) for path in paths}
    expected = {(a, b): p[a] * p[b] / (1 - p[a]) for a in paths for b in paths if a != b}
    counts = Counter()
    for seed in range(1500):
        _, found, _ = grown(stochastic_beam.Config(2), draws(seed)[1], 2, lambda path: q)
        counts[tuple(path for path in found if len(path) == 2)] += 1
    assert chi_square(counts, expected) < 24.72


def test_a_narrow_beam_is_a_chain():
    for draw in draws(2):
        assert grown(stochastic_beam.Config(1), draw, 4)[1] == grown("chain", draw, 4)[1]
    with pytest.raises(ValueError, match="width must be at least 1; got 0"):
        stochastic_beam.Config(0)
