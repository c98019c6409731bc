"""States that go round a ring give the loss, the gradient and the state of one process."""

import many
import torch

from runnel.layouts import lasp, lasp2
from runnel.train import Mesh

PATTERNS = (
    "(gla, mamba2)",
    "gated_deltanet",
    "mamba",
    "mlstm",
    "lru",
    "s4d",
    "s4",
    "log_linear_attention",
    "block_rnn",
)


def test_the_ring_is_one_process():
    for found in many.again(3, "slices:compare", Mesh(sequence=3), "lasp", PATTERNS):
        assert found.keys() == set(PATTERNS)
        for pattern, difference in found.items():
            assert isinstance(difference, float) and difference < 1e-10, (pattern, difference)


def test_two_by_two():
    for found in many.again(4, "slices:compare", Mesh(data=2, sequence=2), "lasp", ("gla", "mamba2")):
        assert max(found.values()) < 1e-10


def test_what_a_process_sends_does_not_grow():
    lengths = (64, 256, 1024)
    for rank, sent in enumerate(many.again(2, "slices:bytes_sent", Mesh(sequence=2), "lasp", "gla", lengths)):
        assert sent[0] == sent[1] == sent[2]
        assert sent[0]["send"] > 0, rank  # one way forward, the other way back


def test_attention_is_refused():
    found = many.again(2, "slices:compare", Mesh(sequence=2), "lasp", ["attention"])
    assert found[0] == {
        "attention": "lasp passes states, and attention has none: choose lasp2, zigzag or ring_attention"
    }


def test_it_hands_on_what_lasp2_folds():
    torch.manual_seed(0)
    summaries = [(torch.rand(3), torch.rand(3)) for _ in range(4)]
    memory = torch.rand(3)

    def after(memory, kept, written):
        return kept * memory + written

    for index in range(5):
        found = lasp.reference(after, memory, summaries, index)
        assert torch.equal(found, lasp2.reference(after, memory, summaries, index))
