"""Keys and values that go round a ring give the attention of one process."""

import many
import torch

from runnel.layouts.ring_attention import reference
from runnel.train import Mesh

PATTERNS = ("attention", "attention(kv_heads=1)", "attention(window=3, sinks=2)", "(gla, attention)", "mega")


def test_the_ring_is_one_process():
    for found in many.again(3, "slices:compare", Mesh(sequence=3), "ring_attention", PATTERNS, False):
        assert found.keys() == set(PATTERNS)
        for pattern, difference in found.items():
            assert isinstance(difference, float) and difference < 1e-10, (pattern, difference)


def test_two_by_two():
    mesh = Mesh(data=2, sequence=2)
    for found in many.again(4, "slices:compare", mesh, "ring_attention", ("(mamba2, attention)",)):
        assert max(found.values()) < 1e-10


def test_it_cannot_go_on_from_a_state():
    found = many.again(2, "slices:carried_on", Mesh(sequence=2), "ring_attention", "attention")
    assert found[0] == (
        "ValueError",
        "ring_attention starts from the empty memory; the exchange lasp2 can go on from a state",
    )


def test_the_online_softmax_is_the_softmax():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, 12, 4, dtype=torch.float64).unbind(0)
    hidden = torch.ones(12, 12).triu(1).bool().expand(2, 1, -1, -1)
    wanted = (q @ k.mT / 2).masked_fill(hidden, -torch.inf).softmax(-1) @ v
    for blocks in (1, 3, 4):
        torch.testing.assert_close(reference(q, k, v, hidden, blocks), wanted, rtol=0, atol=1e-12)
