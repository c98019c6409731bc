import pytest
import torch

import runnel
from runnel.drafters import draft_model
from runnel.generation import generate
from runnel.ops import drafting_costs
from runnel.trees import acceptance_head
from tests.decoding.support import RAGGED, sharp
from tests.trees.support import draws, grown, law

KINDS = [(0.95, 0.5), (0.6, 0.3), (0.2, 0.2)]


def head(seed=0):
    torch.manual_seed(seed)
    return acceptance_head.Head(width=8, layers=2).double()


@torch.no_grad()
def test_the_chain_ends_where_a_rejection_is_likely():
    own, lengths = head(), set()
    own.leave.weight.mul_(6.0)
    for seed in range(5):
        for draw in draws(seed):
            chain = grown("chain", draw, 6)[1]
            for threshold in (0.0, 0.3, 0.6, 1.0):
                draft, paths, _ = grown(acceptance_head.Config(own, threshold), draw, 6)
                kept, size = 1.0, 0
                while (size < 6 and 1 - kept <= threshold) or size == 0:
                    chances = draw.chances(law(chain[size][:-1]), size, chain[size][:-1])
                    known = acceptance_head.features(chances, torch.tensor(chain[size][-1]))
                    kept *= float(torch.sigmoid(own(known)))
                    size += 1
                assert paths == chain[:size]
                lengths.add((threshold, size))
                assert draft.parents == list(range(-1, size - 1))
    assert {size for threshold, size in lengths if threshold == 0} == {1}
    assert {size for threshold, size in lengths if threshold == 1} == {6}
    assert len({size for threshold, size in lengths if threshold == 0.3}) > 1


def test_the_loss_is_the_definition():
    logits, chances = torch.tensor([0.5, -1.0]).double(), torch.tensor([0.9, 0.2]).double()
    kept = torch.sigmoid(logits)
    expected = -(chances * kept.log() + 6 * (1 - chances) * (1 - kept).log()).mean()
    torch.testing.assert_close(acceptance_head.loss(logits, chances, 6.0), expected)


def test_the_best_threshold_is_the_best_of_all_policies():
    """Kinds of drafts known only once drawn, at different costs: no choice of when to go on is better."""
    met = set()
    for kinds in (KINDS[:1], [(0.9, 0.5), (0.3, 0.5)], [(0.99, 0.3), (0.5, 0.7)]):
        for draft_cost in (0.02, 0.1, 0.3, 1.0):
            threshold = drafting_costs.best_threshold(kinds, draft_cost, 1.0, 3)
            tokens, cost = drafting_costs.expected(kinds, threshold, draft_cost, 1.0, 3)
            assert tokens / cost == pytest.approx(acceptance_head.reference(kinds, draft_cost, 1.0, 3), abs=1e-12)
            met.add(0 if threshold == 0 else 1)
    assert met == {0, 1}


def test_no_fixed_length_is_cheaper_where_drafts_differ():
    for draft_cost in (0.05, 0.1, 0.2):
        threshold = drafting_costs.best_threshold(KINDS, draft_cost, 1.0, 6)
        tokens, cost = drafting_costs.expected(KINDS, threshold, draft_cost, 1.0, 6)
        fixed = []
        for longest in range(1, 7):
            found = drafting_costs.expected(KINDS, 1.0, draft_cost, 1.0, longest)
            fixed.append(found[0] / found[1])
        assert tokens / cost > max(fixed)


@torch.no_grad()
def test_examples_hold_the_chances_of_drafts_in_a_mixed_text():
    target, drafter = sharp(scale=6.0), sharp("mingru", seed=1, scale=6.0)
    texts = torch.randint(0, 5, (4, 20), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    known, chances = acceptance_head.examples(target, drafter, texts, mixing=0.0)
    p, q = (model(texts[:, :-1])[0].softmax(-1) for model in (target, drafter))
    for place, (own, chance) in enumerate(zip(known, chances, strict=True)):
        row, column = divmod(place, 19)
        token = int((q[row, column].log() - own[0]).abs().argmin())
        assert float(q[row, column, token].log() - own[0]) == pytest.approx(0.0, abs=1e-9)
        assert float(chance) == pytest.approx(min(1.0, float(p[row, column, token] / q[row, column, token])), abs=1e-9)
        assert float(own[3]) == pytest.approx(float(torch.distributions.Categorical(q[row, column]).entropy()))
    mixed, _ = acceptance_head.examples(target, drafter, texts, mixing=1.0)
    assert (mixed - known).abs().max() > 0.1


def test_a_trained_head_saves_drafts_and_changes_no_text():
    model = runnel.build("mingru", vocab_size=5, d_model=16, seed=0).double()
    other = runnel.build("mingru", vocab_size=5, d_model=16, seed=1).double()
    with torch.no_grad():
        for own in (model, other):
            own.head.logits.weight.mul_(6.0)
    torch.manual_seed(0)
    texts = torch.tensor(generate(model, [[0]] * 40, 40, seed=9).tokens)
    known, chances = acceptance_head.examples(model, other, texts)
    own = head()
    with torch.no_grad():
        before = float(acceptance_head.loss(own(known), chances, 1.0))
    after = acceptance_head.fit(own, known, chances, rejection_weight=1.0)
    mean = chances.mean()
    constant = float(acceptance_head.loss(torch.full_like(chances, float(mean.logit())), chances, 1.0))
    assert after < min(before, constant)  # it knows more than how often drafts are accepted
    stopping = draft_model.Config(other, max_draft=5, tree=acceptance_head.Config(own, 0.8))
    going_on = draft_model.Config(other, max_draft=5)
    plain = generate(model, RAGGED, 40, seed=3)
    cut, full = (generate(model, RAGGED, 40, seed=3, drafter=drafter) for drafter in (stopping, going_on))
    assert cut.tokens == full.tokens == plain.tokens
    shares = [found.stats["accepted"] / found.stats["drafted"] for found in (cut, full)]
    assert shares[0] > shares[1]


def test_bad_thresholds_are_refused():
    with pytest.raises(ValueError, match=r"threshold must lie in \[0, 1\]; got 1.5"):
        acceptance_head.Config(head(), 1.5)
