import itertools

import pytest
import torch

from runnel.acceptance import rejection, spectr
from tests.decoding.support import walk_of

RULE = spectr.Spectr(spectr.Config())


def laws(seed, size):
    rng = torch.Generator().manual_seed(seed)
    return torch.softmax(2 * torch.randn(2, size, dtype=torch.float64, generator=rng), -1)


def accepted(law, taken, count):
    """How often K-SEQ accepts."""
    scale = spectr.scale_of(law, taken, count)
    return 1 - (1 - float(torch.minimum(taken, law / scale).sum())) ** count


def best(law, taken, count):
    """The best that any rule can do, by eq. (1)."""
    sets = itertools.product([False, True], repeat=law.numel())
    return min(float(law[list(a)].sum()) + 1 - float(taken[list(a)].sum()) ** count for a in sets)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_reference_writes_the_law(count):
    for seed in range(10):
        law, taken = laws(seed, 4)
        torch.testing.assert_close(spectr.reference(law, taken, count), law, rtol=0, atol=1e-12)


@pytest.mark.parametrize("count", [2, 3])
def test_the_transport_is_a_coupling_and_the_best_one(count):
    for seed in range(8):
        law, taken = laws(seed, 3)
        flow = spectr.transport(law.tolist(), taken.tolist(), count)
        for token, p in enumerate(law.tolist()):
            assert sum(mass for (_, written), mass in flow.items() if written == token) <= p + 1e-12
        for guesses in itertools.product(range(3), repeat=count):
            sent = sum(mass for (guess, _), mass in flow.items() if guess == guesses)
            assert sent <= float(taken[list(guesses)].prod()) + 1e-12
        assert all(token in guesses and mass >= -1e-15 for (guesses, token), mass in flow.items())
        assert abs(sum(flow.values()) - best(law, taken, count)) < 1e-10


def test_it_accepts_nearly_as_often_as_the_best_rule():
    """At least 1 - (1 - 1/k)^k of the optimum, and never more than it."""
    for seed in range(200):
        law, taken = laws(seed, 5)
        for count in (1, 2, 3, 5):
            share = accepted(law, taken, count) / best(law, taken, count)
            assert 1 - (1 - 1 / count) ** count - 1e-9 <= share <= 1 + 1e-9
            assert share >= 1 - torch.exp(torch.tensor(-1.0)).item()


def test_more_guesses_are_accepted_more_often():
    law, taken = laws(1, 5)
    rates = [accepted(law, taken, count) for count in (1, 2, 4, 8)]
    assert rates == sorted(rates)
    assert rates[0] == pytest.approx(float(torch.minimum(law, taken).sum()))
    assert rates[-1] > rates[0] + 0.05


def test_one_guess_is_rejection():
    rule, (law, taken) = rejection.Rejection(rejection.Config()), laws(2, 4)
    for seed in range(100):
        for drawn in ([taken.log()], None):
            one, other = (walk_of([(seed % 4, 0)], law.log().expand(2, 4), drawn, seed=seed) for _ in range(2))
            RULE.accept([one])
            rule.accept([other])
            assert (one.path, one.row.tokens) == (other.path, other.row.tokens)


def test_equal_laws_accept_the_first_guess():
    law, _ = laws(3, 4)
    assert spectr.scale_of(law, law, 3) == pytest.approx(1.0, abs=1e-5)  # flat there
    walk = walk_of([(1, 0), (1, 0), (2, 0)], law.log().expand(4, 4), [law.log()] * 3)
    walk.forest.independent = [True]
    RULE.accept([walk])
    assert walk.row.tokens[0] == 1
    assert walk.path == [0, 1]
