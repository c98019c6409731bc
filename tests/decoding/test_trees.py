"""Every tree builder, grown by a draft model of every mixer and three hybrids, on a target of the same."""

import pytest

from runnel import catalog
from runnel.drafters import draft_model
from runnel.generation import generate
from runnel.trees import (
    acceptance_head,
    best_first,
    calibrated,
    independent,
    stochastic_beam,
    template,
    without_replacement,
)
from tests.decoding.support import HYBRIDS, PATTERNS, RAGGED, assert_same_state, sharp, stepped
from tests.trees.support import head

TREES = {
    "acceptance_head": acceptance_head.Config(head(), 0.6),
    "best_first": best_first.Config(nodes=6),
    "calibrated": calibrated.Config([[0.6, 0.2], [0.5, 0.2], [0.4]], nodes=6),
    "chain": "chain",
    "independent": independent.Config(chains=2),
    "stochastic_beam": stochastic_beam.Config(width=2),
    "template": template.Config(),
    "without_replacement": without_replacement.Config((2, 2)),
}


def test_every_builder_has_its_case():
    assert set(TREES) == set(catalog.names("trees"))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_greedy_is_the_same_with_every_tree(pattern):
    model = sharp(pattern)
    plain = [stepped(model, prompt, 6) for prompt in RAGGED]
    for name, tree in TREES.items():
        drafter = draft_model.Config(sharp(pattern, seed=1), max_draft=3, tree=tree)
        for rule in ("match", "recursive_rejection") if pattern in HYBRIDS else ("recursive_rejection",):
            found = generate(model, RAGGED, 6, decoder="greedy", drafter=drafter, acceptance=rule)
            assert found.tokens == [tokens for tokens, _ in plain], (name, rule)
            for row, (_, state) in enumerate(plain):
                assert_same_state(found.state, row, state)


@pytest.mark.parametrize("pattern", ["mingru", "gated_deltanet, mingru, attention"])
def test_a_seed_writes_the_same_text_with_every_tree(pattern):
    model, options = sharp(pattern, scale=8.0), {"seed": 5, "temperature": 0.8, "top_p": 0.9}
    plain = generate(model, RAGGED, 16, **options)
    for name, tree in TREES.items():
        drafter = draft_model.Config(sharp(pattern, seed=1, scale=8.0), max_draft=3, tree=tree)
        found = generate(model, RAGGED, 16, drafter=drafter, **options)
        assert found.tokens == plain.tokens, name
        assert found.stats["accepted"] > 0, name


@pytest.mark.parametrize("rule", ["rejection", "recursive_rejection", "spectr", "block"])
def test_the_target_s_own_guesses_are_all_accepted(rule):
    model = sharp(scale=6.0)
    drafter = draft_model.Config(model, max_draft=3)
    found = generate(model, RAGGED, 12, seed=1, drafter=drafter, acceptance=rule)
    assert found.stats["target_calls"] == 3
