import torch

from runnel.acceptance import rejection
from tests.decoding.support import CHI_SQUARE_99, chi_square, walk_of

P = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
Q = torch.tensor([0.4, 0.1, 0.5, 0.0], dtype=torch.float64)


def test_the_reference_writes_the_law():
    for taken in (Q, P, torch.eye(4, dtype=torch.float64)[2]):
        torch.testing.assert_close(torch.tensor(rejection.reference(P.tolist(), taken.tolist())).double(), P)


def test_what_is_written_follows_the_law():
    """Chi-square of the first token, the draft drawn from q or given: 3 degrees of freedom."""
    rule, rng = rejection.Rejection(rejection.Config()), torch.Generator().manual_seed(0)
    drawn = torch.multinomial(Q, 20_000, replacement=True, generator=rng).tolist()
    for given in (False, True):
        counts: dict[tuple[int, ...], int] = {}
        accepted = 0
        for seed, token in enumerate(drawn):
            token = 2 if given else token
            walk = walk_of([(token, 0)], P.log().expand(2, 4), None if given else [Q.log()], seed=seed)
            rule.accept([walk])
            written = tuple(walk.row.tokens[:1])
            counts[written] = counts.get(written, 0) + 1
            accepted += len(walk.path) == 2
        assert chi_square(counts, {(token,): float(p) for token, p in enumerate(P)}) < CHI_SQUARE_99[3]
        rate = float(P[2]) if given else float(torch.minimum(P, Q).sum())
        assert abs(accepted / 20_000 - rate) < 0.015


def test_only_the_first_child_is_looked_at():
    rule = rejection.Rejection(rejection.Config())
    only_one = torch.tensor([[-torch.inf, 0.0, -torch.inf, -torch.inf]] * 3, dtype=torch.float64)
    walk = walk_of([(0, 0), (1, 0)], only_one)
    rule.accept([walk])
    assert (walk.path, walk.row.tokens) == ([0], [1])
