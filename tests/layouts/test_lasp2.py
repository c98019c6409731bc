"""Slices of a sequence on several processes give the loss, the gradient and the state of one process."""

import many
import pytest
import torch

from runnel import catalog
from runnel.layouts import prefixes
from runnel.layouts.lasp2 import reference
from runnel.lineage import Lineage
from runnel.train import Mesh

HYBRIDS = ("(mamba2, attention)", "(gated_deltanet, attention(window=5))", "(gla, mamba, s4d)")
PRIMITIVES = (
    *("mingru", "lru", "s4d", "s4", "block_rnn", "mamba", "gla", "rwkv6", "gsa", "rwkv4", "log_linear_attention"),
    *("deltanet", "rwkv7", "delta_product", "short_conv", "attention"),
)
"""A mixer of each that can be cut."""
LENGTHS = (64, 256, 1024)


def close(found, within=1e-10):
    for pattern, difference in found.items():
        assert isinstance(difference, float) and difference < within, (pattern, difference)


def test_every_mixer_is_one_process_or_says_why_not():
    everyone = many.again(2, "slices:compare", Mesh(sequence=2), "lasp2", catalog.names("mixers"))
    assert everyone[0].keys() == everyone[1].keys()
    exact = {name: found for name, found in everyone[0].items() if not isinstance(found, str)}
    close(exact)
    refused = {name for name, found in everyone[0].items() if "cannot be cut" in str(found)}
    assert exact.keys() | refused == set(catalog.names("mixers"))
    assert {"attention", "gla", "mamba", "mamba2", "rwkv7", "s4d", "mlstm", "retnet", "mingru"} <= exact.keys()
    assert {"gru", "lstm", "slstm"} <= refused


def test_two_by_two():
    for found in many.again(4, "slices:compare", Mesh(data=2, sequence=2), "lasp2", (*PRIMITIVES, *HYBRIDS)):
        close(found)


def test_three_slices_that_are_shorter_than_a_convolution():
    close(many.again(3, "slices:compare", Mesh(sequence=3), "lasp2", ["short_conv(width=8)", "mamba2"], True, 6)[0])


@pytest.mark.parametrize("pattern", ["(gla, attention)", "mamba2", "mlstm"])
def test_going_on_from_a_state(pattern):
    for outputs, gradient, lengths in many.again(2, "slices:carried_on", Mesh(sequence=2), "lasp2", pattern):
        assert outputs < 1e-10 and gradient < 1e-8 and lengths == [8, 48]


def test_what_recurrent_layers_send_does_not_grow():
    sent = many.again(2, "slices:bytes_sent", Mesh(sequence=2), "lasp2", "gla", LENGTHS)[0]
    assert sent[0] == sent[1] == sent[2] and sent[0]["allgather_"] > 0
    attention = many.again(2, "slices:bytes_sent", Mesh(sequence=2), "lasp2", "attention", LENGTHS)[0]
    assert [one["allgather_"] for one in attention] == [2 * 2 * (length // 2) * 8 * 8 for length in LENGTHS]  # k and v


def test_the_fold_is_the_loop():
    torch.manual_seed(0)
    everyone = [torch.rand(4, 3, 3, dtype=torch.float64) for _ in range(2)]

    def after(memory, kept, written):
        return kept @ memory + written

    memory = torch.rand(3, 3, dtype=torch.float64)
    before, last = prefixes(after, memory, everyone)
    for index in range(5):
        wanted = reference(after, memory, list(zip(*everyone, strict=True)), index)
        assert torch.equal(last if index == 4 else before[index], wanted)


def test_rows_that_cannot_be_cut_are_refused():
    with pytest.raises(ValueError, match="a multiple of 4 tokens long, to be cut so; got 10"):
        Lineage.sequence(2, 10).cut(0, 4, None)
    with pytest.raises(ValueError, match="only a chain without a prefix"):
        Lineage.tree(torch.tensor([[-1, 0]])).cut(0, 2, None)


def test_slices_have_the_lineage_of_the_whole():
    segments = torch.tensor([[0, 0, 1, 1, 1, -1, 2, 2], [0, 0, 0, 0, 0, 0, 0, 0]])
    whole = Lineage.packed(segments).at(torch.tensor([5, 7]))
    slices = [whole.cut(index, 4, None) for index in range(4)]
    valid = segments >= 0
    positions = torch.cat([part.positions for part in slices], dim=1)
    assert torch.equal(positions[valid], whole.positions[valid])
    assert all(torch.equal(part.end, whole.end) for part in slices)
    assert torch.equal(whole.reach(slice(2, 6), slice(0, 8)), whole.ancestors[:, 2:6])
    again = slices[2].at(torch.tensor([1, 1]))
    assert torch.equal(again.positions[1], torch.tensor([5, 6]))
