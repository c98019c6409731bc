import itertools
import math

import torch

from runnel.acceptance import Acceptance, block, rejection
from runnel.catalog import make
from runnel.trees import TreeBuilder
from tests.decoding.enumeration import accepted, tables
from tests.decoding.support import walk_of

RULE = block.Block(block.Config())
P = [0.1, 0.2, 0.7]
Q = [0.5, 0.3, 0.2]


def test_the_reference_writes_the_law():
    for taken in (Q, P, [0.0, 1.0, 0.0]):
        for count in (1, 2, 3):
            written = block.reference(P, taken, count)
            for text, p in written.items():
                assert abs(p - math.prod(P[token] for token in text)) < 1e-12, text
            assert abs(sum(written.values()) - 1) < 1e-12


def test_the_paper_s_example():
    """Two tokens, p = (1/3, 2/3), q = (2/3, 1/3), two drafts: 11/9 accepted, token by token 10/9."""
    p, q = torch.tensor([1 / 3, 2 / 3]).double(), torch.tensor([2 / 3, 1 / 3]).double()
    found = [
        accepted(
            make("acceptance", Acceptance, rule),
            make("trees", TreeBuilder, "chain"),
            lambda _: p.log(),
            lambda _: q.log(),
            (1, 1),
        )
        for rule in ("block", "rejection")
    ]
    torch.testing.assert_close(found, [11 / 9, 10 / 9])


def test_it_accepts_at_least_what_rejection_does():
    gains = []
    for seed in range(10):
        target, drafter = tables(seed=seed)
        both = [
            accepted(make("acceptance", Acceptance, rule), make("trees", TreeBuilder, "chain"), target, drafter, (1, 1))
            for rule in ("block", "rejection")
        ]
        gains.append(both[0] - both[1])
    assert min(gains) > -1e-12
    assert max(gains) > 0.01


def test_one_draft_is_rejection():
    rule, p, q = rejection.Rejection(rejection.Config()), torch.tensor(P).double(), torch.tensor(Q).double()
    for seed, token in itertools.product(range(60), range(3)):
        for drawn in ([q.log()], None):
            one, other = (walk_of([(token, 0)], p.log().expand(2, 3), drawn, seed=seed) for _ in range(2))
            RULE.accept([one])
            rule.accept([other])
            assert (one.path, one.row.tokens) == (other.path, other.row.tokens)


def test_another_tree_is_walked_by_its_first_children():
    sure = torch.full((6, 3), -torch.inf, dtype=torch.float64)
    for node, token in enumerate([1, 2, 0, 0, 0, 0]):  # what the model says after the nodes below
        sure[node, token] = 0.0
    walk = walk_of([(1, 0), (2, 0), (2, 1), (0, 3), (1, 3)], sure)
    RULE.accept([walk])
    assert (walk.path, walk.row.tokens) == ([0, 1, 3, 4], [1, 2, 0, 0])


def test_a_text_that_ends_within_the_chain_ends_there():
    sure = torch.full((4, 3), -torch.inf, dtype=torch.float64)
    sure[:, 1] = 0.0
    walk = walk_of([(1, 0), (1, 1), (1, 2)], sure, limit=2)
    RULE.accept([walk])
    assert (walk.path, walk.row.tokens) == ([0, 1], [1, 1])
