"""Queries dealt out in a zigzag give the attention of one process, and every process reads as many keys."""

import many
import pytest
import torch

from runnel.layouts.zigzag import reference, taken
from runnel.train import Mesh

PATTERNS = ("attention", "attention(kv_heads=1)", "attention(window=5, sinks=2)", "(gla, attention)", "mamba2")


def test_zigzag_is_one_process():
    for found in many.again(3, "slices:compare", Mesh(sequence=3), "zigzag", PATTERNS):
        assert found.keys() == set(PATTERNS)
        for pattern, difference in found.items():
            assert isinstance(difference, float) and difference < 1e-10, (pattern, difference)


def test_two_by_two():
    for found in many.again(4, "slices:compare", Mesh(data=2, sequence=2), "zigzag", ("(mamba2, attention)",)):
        assert max(found.values()) < 1e-10


def test_going_on_from_a_state():
    mesh = Mesh(sequence=2)
    for outputs, gradient, lengths in many.again(2, "slices:carried_on", mesh, "zigzag", "(gla, attention)"):
        assert outputs < 1e-10 and gradient < 1e-8 and lengths == [8, 48]


def test_rows_of_any_length_are_filled_up():
    for found in many.again(3, "slices:compare", Mesh(sequence=3), "zigzag", ("(gla, attention)",), False, 25):
        assert max(found.values()) < 1e-10


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_every_piece_is_taken_once_and_all_read_as_many_keys(count):
    pieces = [taken(index, count) for index in range(count)]
    assert sorted(sum(pieces, ())) == list(range(2 * count))
    assert {sum(piece + 1 for piece in pair) for pair in pieces} == {2 * count + 1}


def test_the_pieces_are_the_whole():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 12, 4, dtype=torch.float64)
    hidden = torch.ones(12, 12).triu(1).bool()
    wanted = ((q @ k.T / 2).masked_fill(hidden, -torch.inf).softmax(-1) @ v).split(2)
    for index, found in enumerate(reference(q, k, v, 3)):
        torch.testing.assert_close(found, torch.cat([wanted[piece] for piece in taken(index, 3)]), rtol=0, atol=1e-12)
