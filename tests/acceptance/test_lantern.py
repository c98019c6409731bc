import pytest
import torch

from runnel.acceptance import lantern
from runnel.catalog import make
from runnel.generation import generate
from runnel.trees import TreeBuilder, without_replacement
from tests.decoding.enumeration import accepted, tables, written_law
from tests.decoding.support import CASES, RAGGED, Branching, sharp

LINE = torch.arange(6, dtype=torch.float64)[:, None]


def laws(seed, size=6):
    rng = torch.Generator().manual_seed(seed)
    return torch.softmax(2 * torch.randn(2, size, dtype=torch.float64, generator=rng), -1)


def distance(p, q):
    return float((torch.as_tensor(p) - torch.as_tensor(q)).abs().sum() / 2)


def test_what_is_written_is_the_pooled_law_within_its_budget():
    for seed in range(20):
        law, taken = laws(seed)
        for k, delta in ((1, 0.5), (3, 0.0), (3, 0.1), (6, 0.05), (6, 1.0)):
            rule = lantern.Lantern(lantern.Config(LINE, k, delta))
            pool, moved = rule.pooled(law, taken)
            written = torch.tensor(lantern.reference(law.tolist(), taken.tolist(), rule.config), dtype=torch.float64)
            torch.testing.assert_close(written, pool, rtol=0, atol=1e-12)
            assert moved == pytest.approx(distance(pool, law))
            assert moved <= delta + 1e-12
            gain = torch.minimum(pool, taken).sum() - torch.minimum(law, taken).sum()
            assert float(gain) == pytest.approx(moved, abs=1e-12)  # acceptance rises by what was moved
            assert (moved == 0) == (k == 1 or delta == 0)
    assert distance(rule.pooled(law, taken)[0], taken) < 1e-12  # all may be moved, all are near


def test_acceptance_rises_with_the_neighbourhood():
    rates = []
    for k in (1, 2, 3, 6):
        rule, rate = lantern.Lantern(lantern.Config(LINE, k, 0.3)), 0.0
        for seed in range(20):
            law, taken = laws(seed)
            rate += float(torch.minimum(rule.pooled(law, taken)[0], taken).sum()) / 20
        rates.append(rate)
    assert rates == sorted(rates)
    assert rates[-1] > rates[0] + 0.1


def test_a_given_token_takes_the_mass_of_its_nearest_first():
    rule = lantern.Lantern(lantern.Config(LINE, 3, 0.25))
    law = torch.tensor([0.1, 0.2, 0.3, 0.2, 0.1, 0.1], dtype=torch.float64)
    given = torch.eye(6, dtype=torch.float64)[0]
    pool, moved = rule.pooled(law, given)  # the neighbours of 0 are 1, then 2
    torch.testing.assert_close(pool, torch.tensor([0.35, 0.0, 0.25, 0.2, 0.1, 0.1], dtype=torch.float64))
    assert moved == pytest.approx(0.25)


def test_pooling_for_each_draft_anew_may_go_further_than_delta():
    """The paper's rule where every draft has a likely neighbour of its own: what is written is the drafter's law."""
    points = torch.tensor([[0.0], [10.0], [20.0], [30.0], [1.0], [11.0], [21.0], [31.0]], dtype=torch.float64)
    law = torch.tensor([0.25] * 4 + [0.0] * 4, dtype=torch.float64)
    taken = law.flip(0)
    rule = lantern.Lantern(lantern.Config(points, 2, 0.25))
    written = torch.zeros(8, dtype=torch.float64)
    for token in range(4, 8):
        (near,) = rule.neighbours(token)
        chance = min(1.0, float((law[token] + law[near]) / taken[token]))
        assert chance == 1.0
        written[token] += taken[token] * chance
    assert distance(written, law) == 1.0
    assert distance(rule.pooled(law, taken)[0], law) == pytest.approx(0.25)


def test_the_rule_writes_the_pooled_law_over_a_tree():
    """The first of three tokens, enumerated over siblings and chances, against the pooled law of each first sibling."""
    target, drafter = tables(seed=4)
    builder = make("trees", TreeBuilder, without_replacement.Config((2,)))
    rule = lantern.Lantern(lantern.Config(LINE[:3], 3, 0.1))
    found = written_law(rule, builder, target, drafter, (2,), length=2)
    first = torch.tensor([sum(p for text, p in found.items() if text[0] == token) for token in range(3)])
    pool, moved = rule.pooled(target(()).softmax(-1), drafter(()).softmax(-1))
    torch.testing.assert_close(first.double(), pool, rtol=0, atol=1e-6)
    assert 0 < moved <= 0.1
    assert max(rule.drifts) <= 0.1
    strict = lantern.Lantern(lantern.Config(LINE[:3], 3, 0.0))
    assert accepted(rule, builder, target, drafter, (2,), 2) > accepted(strict, builder, target, drafter, (2,), 2)


@pytest.mark.parametrize("config", [(1, 0.5), (4, 0.0)])
def test_without_neighbours_or_budget_it_is_recursive_rejection(config):
    model = sharp(scale=8.0)
    table = model.embed.weight.detach()
    for drafter in (CASES["draft_model"](model), Branching(None)):
        rule = lantern.Lantern(lantern.Config(table, *config))
        strict = generate(model, RAGGED, 12, seed=5, drafter=drafter, acceptance="recursive_rejection")
        assert generate(model, RAGGED, 12, seed=5, drafter=drafter, acceptance=rule).tokens == strict.tokens
        assert rule.bound() == 0
        loose = lantern.Lantern(lantern.Config(table, 4, 0.2))
        found = generate(model, RAGGED, 12, seed=5, drafter=drafter, acceptance=loose)
        assert found.tokens != strict.tokens
        assert 0 < loose.bound() <= max(loose.drifts) + 1e-12 <= 0.2 + 1e-9


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="neighbours must be at least 1; got 0"):
        lantern.Config(LINE, neighbours=0)
    with pytest.raises(ValueError, match=r"delta must lie in \[0, 1\]; got 2"):
        lantern.Config(LINE, delta=2)
    with pytest.raises(ValueError, match="embeddings must have 4 rows, one a token; got 6"):
        lantern.Lantern(lantern.Config(LINE)).pooled(*laws(0, 4))
