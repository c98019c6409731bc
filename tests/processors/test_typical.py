import math

import pytest
import torch

import runnel
from runnel.processors import typical

from .support import assert_is, assert_lossless, logits_of, sharp, texts_of, unchanged


@pytest.mark.parametrize("mass", [0.2, 0.7, 0.95, 1e-9])
def test_it_is_the_papers(mass):
    config, logits = typical.Config(mass), logits_of(60)
    logits[:30, 5] = -math.inf
    found = typical.Typical(config).process(logits, texts_of(60))
    assert_is(found, [typical.reference(row, config) for row in logits.tolist()])
    assert found.isfinite().any(-1).all()


def test_the_whole_mass_changes_nothing():
    assert unchanged(typical.Typical(typical.Config(1.0)))


def test_a_peak_over_a_flat_law_is_untypical():
    logits = torch.tensor([[math.log(3.0)] + [0.0] * 20], dtype=torch.float64)
    found = typical.Typical(typical.Config(0.5)).process(logits, texts_of(1))
    assert found[0, 0] == -math.inf


def test_it_is_lossless():
    assert_lossless([typical.Config(0.6)])
    assert_lossless([typical.Config(0.3)], top_k=4)


def test_the_law_of_two_tokens_by_enumeration():
    """Every seed's text has the probability that the truncated laws give it: chi-square, 20,000 texts of two tokens."""
    model, config, draws = sharp(vocab_size=3), typical.Config(0.8), 20_000
    laws = {}
    for first in ([], [0], [1], [2]):
        with torch.no_grad():
            logits = model(torch.tensor([[1, 0, *first]]))[0][0, -1] / 2.0
        left = torch.tensor(typical.reference(logits.tolist(), config), dtype=torch.float64)
        laws[tuple(first)] = left.softmax(-1).tolist()
    expected = {(a, b): laws[()][a] * laws[(a,)][b] for a in range(3) for b in range(3)}
    found = runnel.generate(model, [[1, 0]], 2, temperature=2.0, n=draws, processors=[config]).tokens
    counts = {pair: sum(tuple(row) == pair for row in found) for pair in expected}
    assert sum(counts[pair] for pair in expected if expected[pair] == 0) == 0
    possible = {pair: p for pair, p in expected.items() if p > 0}
    assert len(possible) < 9
    chi_square = sum((counts[pair] - draws * p) ** 2 / (draws * p) for pair, p in possible.items())
    assert chi_square < 18.48  # p = 0.01 at 7 degrees of freedom, the most there can be


@pytest.mark.parametrize("mass", [0.0, 1.1, math.nan])
def test_what_cannot_be_meant_is_refused(mass):
    with pytest.raises(ValueError, match=r"mass of typical must lie in \(0, 1\]; got"):
        typical.Config(mass)
