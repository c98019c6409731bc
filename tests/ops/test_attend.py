"""Attention against a loop over heads and positions: groups, windows, sinks, what the memory keeps."""

import pytest
import torch

from runnel.lineage import Lineage
from runnel.ops import attend as attending
from runnel.ops.attend import KeyValues, attend, reference

from .support import PARENTS, PATHS, close, normal

OPTIONS = [{}, {"window": 1}, {"window": 4}, {"window": 4, "sinks": 2}, {"window": 100, "sinks": 3}]


def inputs(length: int, groups: int = 2):
    return normal(2, length, 4, 6), normal(2, length, groups, 6, seed=1), normal(2, length, groups, 6, seed=2)


def empty(groups: int = 2) -> KeyValues:
    return KeyValues.empty(2, groups, 6, torch.zeros((), dtype=torch.float64))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_equals_the_loop_in_one_piece_and_in_pieces(options, groups):
    q, k, v = inputs(13, groups)
    expected = reference(q, k, v, **options)
    y, whole = attend(q, k, v, empty(groups), Lineage.sequence(2, 13), **options)
    close(y, expected)
    grads = [torch.autograd.grad((z * z).sum(), [q, k, v]) for z in (y, expected)]
    for a, b in zip(*grads, strict=True):
        close(a, b)
    memory, pieces, seen = empty(groups), [], 0
    for size in (1, 5, 1, 6):
        lineage = Lineage.sequence(2, size).at(torch.full((2,), seen))
        piece = slice(seen, seen + size)
        y, memory = attend(q[:, piece], k[:, piece], v[:, piece], memory, lineage, **options)
        pieces.append(y)
        seen += size
    close(torch.cat(pieces, dim=1), expected)
    assert torch.equal(memory.positions, whole.positions)
    close(memory.k, whole.k)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_tree(options):
    q, k, v = inputs(5 + len(PARENTS))
    _, memory = attend(q[:, :5], k[:, :5], v[:, :5], empty(), Lineage.sequence(2, 5), **options)
    lineage = Lineage.tree(torch.tensor(PARENTS).expand(2, -1)).at(torch.full((2,), 5))
    y, pending = attend(q[:, 5:], k[:, 5:], v[:, 5:], memory, lineage, **options)
    for path in PATHS:
        columns = [*range(5), *[5 + node for node in path]]
        expected = reference(q[:, columns], k[:, columns], v[:, columns], **options)
        close(y[:, path[-1]], expected[:, -1])
        after = Lineage.sequence(2, len(path)).at(torch.full((2,), 5))
        committed = pending.commit(torch.tensor(path).expand(2, -1), after)
        _, walked = attend(q[:, columns[5:]], k[:, columns[5:]], v[:, columns[5:]], memory, after, **options)
        close(committed.k, walked.k)
        assert torch.equal(committed.positions, walked.positions)


def test_a_window_bounds_the_memory():
    memory = empty()
    for t in range(30):
        q, k, v = inputs(1)
        _, memory = attend(q, k, v, memory, Lineage.sequence(2, 1).at(torch.full((2,), t)), window=4, sinks=2)
        assert memory.positions.shape[1] <= 3 + 2
    assert sorted(memory.positions[0].tolist()) == [0, 1, 27, 28, 29]


def test_rows_of_different_lengths_are_padded_on_the_left():
    q, k, v = inputs(4)
    valid = torch.tensor([[True, True, False, False], [True, True, True, True]])
    _, memory = attend(q, k, v, empty(), Lineage.padded(valid))
    assert memory.positions.tolist() == [[-1, -1, 0, 1], [0, 1, 2, 3]]
    assert torch.equal(memory.k[0, :2], torch.zeros_like(memory.k[0, :2]))


def test_rows_that_are_taken_leave_the_padding_of_others_behind():
    def memory(size):
        return KeyValues(torch.ones(1, size, 2, 4), torch.ones(1, size, 2, 4), torch.arange(size)[None])

    both = KeyValues.cat([memory(3), memory(9)])
    assert [both.take(torch.tensor(rows)).positions.tolist() for rows in ([0], [0, 1])] == [
        [[0, 1, 2]],
        [[-1] * 6 + [0, 1, 2], list(range(9))],
    ]
    assert both.take(torch.tensor([0])).k.shape == both.take(torch.tensor([0, 0])).v[:1].shape == (1, 3, 2, 4)


SEGMENTS = torch.tensor([[0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2, 2, -1], [-1, 4, 4, 4, 9, 9, 9, 9, 9, 9, 9, 9, 9]])
PARTED = torch.tensor([[0, 0, -1, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2], [0] * 13])


@pytest.mark.parametrize("options", [*OPTIONS, {"cap": 2.0}, {"cap": 2.0, "window": 3}], ids=str)
@pytest.mark.parametrize("segments", [SEGMENTS, PARTED], ids=["in one piece", "parted by padding"])
def test_packed_documents_are_documents_alone(options, segments):
    q, k, v = inputs(13)
    y, _ = attend(q, k, v, empty(), Lineage.packed(segments), **options)
    for row in range(2):
        for segment in segments[row][segments[row] >= 0].unique():
            inside = segments[row] == segment
            alone = [x[row : row + 1, inside] for x in (q, k, v)]
            close(y[row : row + 1, inside], reference(*alone, **options))


def test_documents_do_not_read_the_rest_of_their_row(monkeypatch):
    q, k, v = inputs(96)
    read, original = [], attending.weighted
    monkeypatch.setattr(attending, "weighted", lambda q, *rest: read.append(q.shape[:2]) or original(q, *rest))
    attend(q, k, v, empty(), Lineage.packed(torch.arange(96).expand(2, -1) // 8))
    assert read == [(24, 8)]
    assert Lineage.packed(PARTED).documents is None
    assert Lineage.packed(SEGMENTS).documents.tolist() == [[0, 0, 5], [0, 5, 6], [0, 6, 12], [1, 1, 4], [1, 4, 13]]
