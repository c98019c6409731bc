"""A policy may have the loop run plain rounds without being asked; its drafter is told of them in one piece."""

from itertools import cycle

import pytest
import torch

from runnel.drafters import Draft
from runnel.generation import generate
from runnel.policies import LengthPolicy
from tests.decoding.support import CASES, RAGGED, Branching, assert_same_state, sharp


class Resting(LengthPolicy):
    """Drafts all there is room for in one round, and rests for 0, 3, 1, 6, ... rounds."""

    def __init__(self):
        super().__init__(None)
        self.lengths, self.asked, self.seen, self.rested = cycle([0, 3, 1, 6]), 0, 0, 0

    def budgets(self, rows, room):
        self.asked += 1
        return list(room)

    def observe(self, round):
        self.seen += 1

    def rest(self):
        unseen = next(self.lengths)
        self.rested += unseen
        return unseen


class Heard(Branching):
    """What it was told before every draft: the newest token, how many there were, and how many came at once."""

    def begin(self, prompt, draw):
        self.pieces, self.texts = [], []
        return super().begin(prompt, draw)

    def propose(self, memory, budget):
        self.texts.append(list(memory))
        return Draft.chain([memory[-1]])

    def advance(self, memory, tokens):
        self.pieces.append(len(tokens))
        super().advance(memory, tokens)


@pytest.mark.parametrize("name", ["suffix", "draft_model", "jacobi", "hidden_transfer", "token_recycling"])
def test_rests_change_neither_text_nor_state(name):
    model = sharp("gated_deltanet, mingru, attention", scale=8.0)
    options = {"temperature": 0.9, "max_new_tokens": [30, 7, 18], "seed": [3, 5, 8]}
    plain, policy = generate(model, RAGGED, **options), Resting()
    found = generate(model, RAGGED, drafter=CASES[name](model), length=policy, **options)
    assert found.tokens == plain.tokens
    assert policy.rested > 0 and policy.asked == policy.seen
    for row in range(len(RAGGED)):
        assert_same_state(found.state, row, plain.state.fork([row]))
    torch.testing.assert_close(torch.tensor(found.logprobs[0]), torch.tensor(plain.logprobs[0]), rtol=0, atol=1e-9)


def test_a_drafter_knows_the_whole_text_whenever_it_is_asked():
    model, drafter, policy = sharp(), Heard(None), Resting()
    found = generate(model, RAGGED[:1], 40, seed=4, temperature=0.9, drafter=drafter, length=policy)
    text = RAGGED[0] + found.tokens[0]
    assert all(known == text[: len(known)] for known in drafter.texts)
    known = [len(text) for text in drafter.texts]
    assert known[0] == len(RAGGED[0]) and known == sorted(set(known))
    assert sum(drafter.pieces) == known[-1] - known[0] and max(drafter.pieces) > 6
    assert policy.asked + policy.rested >= found.stats["target_calls"] > policy.asked
