import torch

from runnel.acceptance import recursive_rejection, rejection
from tests.decoding.enumeration import EnumeratedWalk, outcomes
from tests.decoding.support import walk_of

P = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
Q = torch.tensor([0.4, 0.1, 0.5, 0.0], dtype=torch.float64)
RULE = recursive_rejection.RecursiveRejection(recursive_rejection.Config())


def laws(count, seed, size=4):
    rng = torch.Generator().manual_seed(seed)
    return torch.softmax(2 * torch.randn(count, size, dtype=torch.float64, generator=rng), -1)


def test_the_reference_writes_the_law():
    for seed in range(10):
        law, taken = laws(2, seed)
        for count in range(5):
            torch.testing.assert_close(recursive_rejection.reference(law, taken, count), law, rtol=0, atol=1e-12)
    torch.testing.assert_close(recursive_rejection.reference(P, Q, 4), P, rtol=0, atol=1e-12)  # Q has three tokens only


def written(children, guessed_from, law):
    """The law of the token that is written below these children, summed over the rule's chances."""

    def run(oracle):
        walk = walk_of([(token, 0) for token in children], law.log().expand(len(children) + 1, -1), guessed_from)
        walk.__class__, walk.oracle = EnumeratedWalk, oracle
        RULE.accept([walk])
        return walk.row.tokens[0]

    found = torch.zeros_like(law)
    for token, p in outcomes(run):
        found[token] += p
    return found


def test_given_siblings_and_those_that_nothing_is_left_for_are_proposals_of_their_own():
    """A given token needs no law: whatever is given, the law of what is written is that of the model."""
    q = Q.log()
    torch.testing.assert_close(written([2, 0, 3], [None] * 3, P), P, rtol=0, atol=1e-12)
    # what was drawn varies: sum over it. The given sibling and the one without mass stand behind the drawn one.
    found = sum(float(Q[x]) * written([x, 1, 3], [q, None, q], P) for x in range(4) if Q[x] > 0)
    torch.testing.assert_close(found, P, rtol=0, atol=1e-12)


def test_repeated_siblings_change_nothing():
    pairs = [(x, y) for x in range(4) for y in range(4) if Q[x] * Q[y] > 0]
    found = sum(float(Q[x] * Q[y]) * written([x, y], [Q.log()] * 2, P) for x, y in pairs)
    torch.testing.assert_close(found, P, rtol=0, atol=1e-12)


def test_one_child_is_rejection():
    rule = rejection.Rejection(rejection.Config())
    for seed in range(100):
        one, other = (walk_of([(seed % 3, 0)], P.log().expand(2, 4), [Q.log()], seed=seed) for _ in range(2))
        RULE.accept([one])
        rule.accept([other])
        assert (one.path, one.row.tokens) == (other.path, other.row.tokens)
