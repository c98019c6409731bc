"""A thousand rounds of random accepting and rejecting leave the text and the state that plain decoding leaves."""

import random

import pytest

from runnel.drafters import Draft, Drafter
from runnel.generation import generate
from tests.decoding.support import HYBRIDS, RAGGED, VOCAB, assert_same_state, sharp

ROUNDS = 1000


class Rolled(Drafter):
    """Random trees: some empty, some deep, guesses right by luck only."""

    def begin(self, prompt, draw):
        return random.Random(len(prompt))

    def propose(self, memory, budget):
        count = min(budget, memory.choice([0, 1, 3, 6, 9]))
        parents = [memory.randint(max(-1, node - 3), node - 1) for node in range(count)]
        return Draft([memory.randrange(VOCAB) for _ in range(count)], parents)

    def advance(self, memory, tokens):
        pass


@pytest.mark.thorough
@pytest.mark.parametrize("pattern", ["mamba", "gated_deltanet", "slstm", *HYBRIDS])
def test_the_state_after_a_thousand_rounds(pattern):
    model, options = sharp(pattern), {"temperature": 0.7, "seed": [3, 6, 8]}
    plain = generate(model, RAGGED, ROUNDS + 400, **options)
    found = generate(model, RAGGED, ROUNDS + 400, drafter=Rolled(None), **options)
    assert found.tokens == plain.tokens
    assert found.stats["target_calls"] >= ROUNDS and found.stats["accepted"] > 100
    for row in range(len(RAGGED)):
        assert_same_state(found.state, row, plain.state.fork([row]))
