import pytest
import torch

import runnel
from runnel.decoders import sample
from runnel.drafters import draft_model


@pytest.fixture(scope="module")
def model():
    model = runnel.build("mamba2, attention", vocab_size=6, d_model=16).double()
    with torch.no_grad():
        model.head.logits.weight.mul_(10)
    return model


class Row:
    """A row that is being written: `draw` follows it."""

    def __init__(self, text, seed):
        self.text, self.seed, self.decoder = list(text), seed, sample.Sample(sample.Config())

    def scores(self, logits, ahead, path):
        assert len(path) == ahead
        return self.decoder.scores(logits[None], [self.seed], [len(self.text) + ahead])[0]

    def __call__(self, logits, ahead, path):
        return int(self.scores(logits, ahead, path).argmax())


@torch.no_grad()
def test_each_draft_is_what_the_model_writes_alone_after_any_acceptance(model):
    drafter = draft_model.DraftModel(draft_model.Config(model, max_draft=4))
    rows = [Row([1, 2, 3], 0), Row([5], 1), Row([2] * 9, 2)]
    memories = [drafter.begin(row.text, row) for row in rows]
    rng = torch.Generator().manual_seed(0)
    accepted_all = 0
    for _ in range(12):
        budgets = torch.randint(0, 7, (3,), generator=rng).tolist()
        drafts = drafter.propose_all(memories, budgets)
        for row, memory, budget, draft in zip(rows, memories, budgets, drafts, strict=True):
            count = min(budget, 4)
            assert draft.tokens == draft_model.reference(model, row.text, row, count)
            assert draft.parents == list(range(-1, count - 1))
            kept = int(torch.randint(0, count + 1, (), generator=rng))
            accepted_all += kept == count == 4
            new = [*draft.tokens[:kept], int(torch.randint(0, 6, (), generator=rng))]
            row.text += new
            drafter.advance(memory, new)
    assert accepted_all > 0


@torch.no_grad()
def test_nothing_is_read_twice(model):
    drafter = draft_model.DraftModel(draft_model.Config(model, max_draft=3))
    row = Row([1, 2, 3, 4], 0)
    memory = drafter.begin(row.text, row)
    tokens = drafter.propose(memory, budget=3).tokens
    drafter.advance(memory, [*tokens, 0])
    state, at = memory.read
    assert int(state.lengths[at]) == 4 + 2  # the prompt and what was drafted on top of; the third was never read
    assert memory.unread == [tokens[2], 0]


def test_models_that_cannot_draft_are_refused(model):
    with pytest.raises(ValueError, match="a draft model must be a model of tokens"):
        draft_model.Config(runnel.build("mingru", value_dim=2, d_model=8))
    with pytest.raises(ValueError, match="max_draft must be at least 1; got 0"):
        draft_model.Config(model, max_draft=0)
