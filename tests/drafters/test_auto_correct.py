import pytest
import torch

import runnel
from runnel.drafters import Seen, auto_correct
from runnel.generation import generate
from runnel.objectives import auto_correct as objective
from runnel.types import Batch
from tests.decoding.support import RAGGED, sharp


def greedy(logits, ahead, path=(), branch=0):
    return int(logits.argmax())


def paths(draft, mask):
    found = []
    for node in range(len(draft.tokens)):
        above, own = draft.parents[node], draft.tokens[node] == mask
        before = found[above] if above >= 0 else (0, 0)
        found.append((before[0] + (not own), before[1] + own))
    return found


def test_the_tree_is_that_of_the_definition():
    drafter = auto_correct.AutoCorrect(auto_correct.Config(mask=9, max_draft=3))
    memory = drafter.begin([1], greedy)
    assert paths(drafter.propose(memory, 5), 9) == auto_correct.reference(0, 3)
    memory.guesses = [torch.eye(10)[token] for token in (4, 5, 6)]
    for budget in (1, 2, 5):
        draft = drafter.propose(memory, budget)
        count = min(budget, 3)
        assert paths(draft, 9) == auto_correct.reference(count, 3)
        assert draft.tokens[:count] == [4, 5, 6][:count]
        assert [logits is None for logits in draft.logits] == [False] * count + [True] * 3 * (count + 1)


def test_the_masks_below_the_last_accepted_node_are_the_next_guesses():
    drafter = auto_correct.AutoCorrect(auto_correct.Config(mask=9, max_draft=2))
    memory = drafter.begin([1], greedy)
    memory.guesses = [torch.eye(10)[token] for token in (4, 9)]  # a candidate may be the mask itself
    draft = drafter.propose(memory, 2)
    logits = torch.arange(9.0)[:, None].expand(-1, 10)
    for path, expected in (([0], [3, 4]), ([0, 1], [5, 6]), ([0, 1, 2], [7, 8]), ([0, 3], [4]), ([0, 3, 4], [])):
        seen = Seen([1, *draft.tokens], [-1, *[parent + 1 for parent in draft.parents]], path, logits, logits)
        drafter.look_back(memory, seen)
        assert [int(guess[0]) for guess in memory.guesses] == expected


def test_without_guesses_it_is_plain_decoding():
    model = sharp(scale=8.0)
    plain = generate(model, RAGGED, 12, seed=2)
    found = generate(model, RAGGED, 12, seed=2, drafter=auto_correct.Config(mask=4, max_draft=0))
    assert found.tokens == plain.tokens
    assert (found.stats["target_calls"], found.stats["drafted"]) == (12, 0)


@pytest.mark.parametrize("pattern", ["mingru", "mamba2, attention"])
def test_a_model_that_learnt_masks_writes_more_than_one_token_a_call(pattern):
    """Code-like lines with names and numbers drawn at random: greedy text is unchanged, in fewer calls."""
    torch.manual_seed(0)
    names = ["index", "value", "total", "count"]
    lines = [f"for {names[i % 4]} in range({i * 7 % 10}): print({names[i % 4]})\n" for i in range(400)]
    order = torch.randperm(400).tolist()
    text = torch.tensor(list("".join(lines[i] for i in order).encode()))
    model = runnel.build(pattern, vocab_size=128, d_model=48, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(80):
        starts = torch.randint(0, len(text) - 65, (8,)).tolist()
        rows = torch.stack([text[start : start + 65] for start in starts])
        optimizer.zero_grad()
        objective.loss(model, Batch(rows[:, :-1], rows[:, 1:])).backward()
        optimizer.step()
    prompts = [list(b"for value in "), list(b"range(")]
    plain = generate(model.eval(), prompts, 60, decoder="greedy")
    found = generate(model, prompts, 60, decoder="greedy", drafter=auto_correct.Config(mask=127, max_draft=4))
    assert found.tokens == plain.tokens
    accepted = found.stats["accepted"] / 2 / found.stats["target_calls"] + 1
    print(f"{pattern}: {accepted:.2f} tokens a call")
    assert accepted > 1.5


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="mask must be at least 0; got -1"):
        auto_correct.Config(mask=-1)
    with pytest.raises(ValueError, match="max_draft must be at least 0; got -2"):
        auto_correct.Config(mask=0, max_draft=-2)
