import pytest
import torch

from runnel.acceptance import judge
from runnel.generation import generate
from runnel.rows import Said
from tests.decoding.support import CASES, RAGGED, Branching, sharp, walk_of


def two_kinds(count=400, seed=0):
    """Hidden vectors that are right when their first number is above one, mostly."""
    rng = torch.Generator().manual_seed(seed)
    hidden = torch.randn(count, 3, generator=rng, dtype=torch.float64)
    noise = 0.2 * torch.randn(count, generator=rng, dtype=torch.float64)
    return hidden, hidden[:, 0] + noise > 1


def test_it_learns_what_is_right():
    config = judge.fit(*two_kinds())
    hidden, right = two_kinds(seed=1)
    judged = torch.tensor([judge.reference(h, config) > 0.5 for h in hidden.tolist()])
    assert (judged == right).double().mean() > 0.9
    assert (judged[right]).double().mean() > 0.9  # the rarer kind weighs the same
    weight = config.weight
    assert abs(weight[0]) > 5 * weight[1:].abs().max()


def test_the_fit_is_a_minimum():
    hidden, right = two_kinds()
    config = judge.fit(hidden, right, decay=1e-2)
    weight = torch.tensor([*config.weight.tolist(), config.bias], dtype=torch.float64, requires_grad=True)
    judged = torch.sigmoid(hidden @ weight[:-1] + weight[-1])
    loss = -(judged[right].log().mean() + (1 - judged[~right]).log().mean()) / 2 + 1e-2 * (weight[:-1] ** 2).sum()
    (gradient,) = torch.autograd.grad(loss, weight)
    assert gradient.abs().max() < 1e-8


def judged_walk(threshold, seed):
    """Two drafts below the root, of which the judge likes the second."""
    config = judge.Config(torch.tensor([1.0, 0.0], dtype=torch.float64), 0.0, threshold)
    walk = walk_of([(1, 0), (2, 0)], torch.zeros(3, 4, dtype=torch.float64), seed=seed)
    hidden = torch.tensor([[0.0, 0.0], [-9.0, 0.0], [9.0, 0.0]], dtype=torch.float64)
    walk.said = Said(walk.said.logits, hidden)
    rule = judge.Judge(config)
    rule.accept([walk])
    return walk, rule


def test_a_draft_is_kept_when_it_is_plain_or_judged_right():
    seen = set()
    for seed in range(60):
        lossy, rule = judged_walk(0.5, seed)
        strict, none = judged_walk(1.0, seed)
        plain = strict.row.tokens[0]
        assert lossy.row.tokens[0] == (plain if plain in (1, 2) else 2)
        assert (rule.drifts[0], none.drifts[0]) == (float(plain not in (1, 2)), 0.0)
        seen.add(plain)
    assert seen == {0, 1, 2, 3}


def test_with_threshold_one_it_is_plain_decoding():
    model = sharp(scale=8.0)
    plain = generate(model, RAGGED, 12, seed=5)
    kind = torch.ones(16, dtype=torch.float64)
    for drafter in (CASES["draft_model"](model), Branching(None)):
        rule = judge.Judge(judge.Config(100 * kind, 1e9, threshold=1.0))
        assert generate(model, RAGGED, 12, seed=5, drafter=drafter, acceptance=rule).tokens == plain.tokens
        assert rule.bound() == 0
        easy = judge.Judge(judge.Config(0 * kind, 1.0, threshold=0.5))
        found = generate(model, RAGGED, 12, seed=5, drafter=drafter, acceptance=easy)
        assert found.stats["target_calls"] < 12
        assert 0 < easy.bound() < 1


@torch.no_grad()
def test_examples_are_the_vectors_after_labelled_tokens():
    model = sharp()
    continuations = [judge.Continuation([1, 2, 3], [4, 0], [True, False]), judge.Continuation([0], [2], [True])]
    hidden, right = judge.examples(model, continuations)
    expected = [
        model.features(torch.tensor([[1, 2, 3, 4, 0]]))[0][0, 3:],
        model.features(torch.tensor([[0, 2]]))[0][0, 1:],
    ]
    torch.testing.assert_close(hidden, torch.cat(expected))
    assert right.tolist() == [True, False, True]


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match=r"threshold must lie in \[0, 1\]; got 2"):
        judge.Config(torch.zeros(2), 0.0, threshold=2)
    with pytest.raises(ValueError, match="needs right and wrong tokens to learn from"):
        judge.fit(torch.zeros(3, 2), torch.tensor([True] * 3))
