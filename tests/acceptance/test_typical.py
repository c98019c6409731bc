import math

import pytest
import torch

from runnel.acceptance import typical
from runnel.generation import generate
from tests.decoding.support import CASES, RAGGED, Branching, sharp, walk_of


def softmax(seed):
    return torch.randn(4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).mul(2).softmax(-1)


def test_the_threshold_is_that_of_the_definition():
    for seed in range(20):
        law = softmax(seed)
        for config in (typical.Config(), typical.Config(0.3, 0.9), typical.Config(1.0, math.inf)):
            least = typical.threshold(law, config)
            found = [v for v, p in enumerate(law.tolist()) if p > least]
            assert found == typical.reference(law.tolist(), config)
    assert typical.reference([0.0, 1.0, 0.0], typical.Config()) == [1]


def test_the_longest_path_of_typical_drafts_is_accepted():
    laws = torch.tensor([[0.4, 0.35, 0.2, 0.05]] * 6, dtype=torch.float64)
    walk = walk_of([(0, 0), (1, 0), (3, 1), (1, 2), (2, 2)], laws.log(), seed=1)  # below 0: 3; below 1: 1 and 2
    typical.Typical(typical.Config(epsilon=0.1, delta=1.0)).accept([walk])
    assert walk.path == [0, 2, 4]  # two tokens, of the two such paths the likelier


def test_what_overrules_plain_decoding_is_typical_and_the_drifts_bound_the_distance():
    law, config, drifts = softmax(3), typical.Config(epsilon=0.3, delta=0.8), []
    token = typical.reference(law.tolist(), config)[-1]
    for seed in range(500):
        rule = typical.Typical(config)
        walk = walk_of([(token, 0)], law.log().expand(2, 4), seed=seed)
        rule.accept([walk])
        assert walk.row.tokens[0] == token
        drifts.append(rule.drifts[0])
    distance = 1 - float(law[token])  # of a token that is always written from the law
    assert 0 < distance < 1 - typical.threshold(law, config)
    assert abs(sum(drifts) / 500 - distance) < 0.06


def test_without_typical_tokens_it_is_plain_decoding():
    model = sharp(scale=8.0)
    plain = generate(model, RAGGED, 12, seed=5)
    for drafter in (CASES["draft_model"](model), Branching(None)):
        rule = typical.Typical(typical.Config(1.0, math.inf))
        assert generate(model, RAGGED, 12, seed=5, drafter=drafter, acceptance=rule).tokens == plain.tokens
        assert (rule.bound(), len(rule.drifts)) == (0.0, 36)
        loose = typical.Typical(typical.Config())
        found = generate(model, RAGGED, 12, seed=5, drafter=drafter, acceptance=loose)
        assert 0 < loose.bound() < 1
        assert found.tokens != plain.tokens


@pytest.mark.parametrize("pattern", ["mamba2", "gated_deltanet, mingru, attention"])
def test_a_greedy_row_is_unchanged(pattern):
    model = sharp(pattern)
    plain = generate(model, RAGGED, 8, decoder="greedy")
    for drafter in (CASES["draft_model"](model), Branching(None)):
        found = generate(model, RAGGED, 8, decoder="greedy", drafter=drafter, acceptance="typical")
        assert found.tokens == plain.tokens
        alone = generate(model, RAGGED[2:], 8, decoder="greedy", drafter=drafter, acceptance="typical")
        assert alone.tokens == plain.tokens[2:]


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match=r"epsilon must lie in \(0, 1\]; got 0"):
        typical.Config(epsilon=0)
    with pytest.raises(ValueError, match="delta must be above 0; got 0"):
        typical.Config(delta=0)
