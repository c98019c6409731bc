"""Lineage as data: parents, positions, ancestors, taps and ends, against the plain definition."""

import pytest
import torch

from runnel import Lineage
from runnel.lineage import FROM_STATE, FROM_ZERO


def ancestors_by_hand(parents: list[int]) -> list[list[bool]]:
    rows = []
    for node in range(len(parents)):
        seen, at = set(), node
        while at >= 0:
            seen.add(at)
            at = parents[at]
        rows.append([column in seen for column in range(len(parents))])
    return rows


def test_sequence():
    lineage = Lineage.sequence(2, 3).at(torch.tensor([5, 0]))
    assert lineage.is_plain and not lineage.is_tree
    assert lineage.positions.tolist() == [[5, 6, 7], [0, 1, 2]]
    assert lineage.parent_columns.tolist() == [[FROM_STATE, 0, 1]] * 2
    assert lineage.end.tolist() == [8, 3]
    assert lineage.ancestors.tolist() == [ancestors_by_hand([-1, 0, 1])] * 2


def test_padding_has_no_children():
    valid = torch.tensor([[False, True, False, True, False]])
    lineage = Lineage.padded(valid).at(torch.tensor([4]))
    assert lineage.parent_columns[0, [1, 3]].tolist() == [FROM_STATE, 1]
    assert lineage.positions[0, [1, 3]].tolist() == [4, 5]
    assert lineage.end.tolist() == [6]
    assert [int(lineage.ancestors[0, :, column].sum()) for column in (0, 2, 4)] == [1, 1, 1]  # each only its own


def test_packed_documents_start_from_zero_except_the_first():
    lineage = Lineage.packed(torch.tensor([[7, 7, 3, -1, 3, 9]])).at(torch.tensor([10]))
    assert lineage.reset.tolist() == [[False, False, True, False, False, True]]
    assert lineage.parent_columns[0, [0, 1, 2, 4, 5]].tolist() == [FROM_STATE, 0, FROM_ZERO, 2, FROM_ZERO]
    assert lineage.positions[0, [0, 1, 2, 4, 5]].tolist() == [10, 11, 0, 1, 0]
    assert lineage.end.tolist() == [1]
    assert lineage.from_state.tolist() == [[True, True, False, False, False, False]]


def test_padding_before_the_first_document_is_no_reset():
    lineage = Lineage.packed(torch.tensor([[-1, -1, 4, 4]])).at(torch.tensor([3]))
    assert not lineage.reset.any()
    assert lineage.positions[0, 2:].tolist() == [3, 4] and lineage.end.tolist() == [5]


def test_tree():
    parents = [-1, 0, 0, 2, -1, 4, 3, 6]
    lineage = Lineage.tree(torch.tensor([parents])).at(torch.tensor([2]))
    assert lineage.ancestors[0].tolist() == ancestors_by_hand(parents)
    assert lineage.positions.tolist() == [[2, 3, 3, 4, 2, 3, 5, 6]]
    assert [columns.tolist() for _, columns in lineage.levels] == [[0, 4], [1, 2, 5], [3], [6], [7]]


def test_deep_tree_is_closed():
    """Repeated squaring reaches the root of a chain of any length."""
    for depth in (1, 2, 3, 31, 32, 33, 100):
        chain = Lineage.tree(torch.arange(-1, depth - 1)[None])
        assert torch.equal(chain.ancestors[0], torch.ones(depth, depth).bool().tril())


def test_taps_count_back_through_parents_then_the_tail():
    """Width 3, so a tail of two slots (0 and 1); tokens begin at 2; the zero row is the last index."""
    tree = Lineage.tree(torch.tensor([[-1, 0, 0, 2]]))
    assert tree.taps(3).tolist() == [[[2, 1, 0], [3, 2, 1], [4, 2, 1], [5, 4, 2]]]
    packed = Lineage.packed(torch.tensor([[0, 1, 1]]))
    assert packed.taps(3).tolist() == [[[2, 1, 0], [3, 5, 5], [4, 3, 5]]]
    assert packed.last_taps(3).tolist() == [[3, 4]]
    short = Lineage.padded(torch.tensor([[False, True]]))
    assert short.last_taps(4).tolist() == [[1, 2, 4]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Lineage.padded(torch.ones(2, 3)), r"valid must be \(B, T\) torch.bool; got \(2, 3\) torch.float32"),
        (lambda: Lineage.packed(torch.ones(3, dtype=torch.long)), r"segments must be \(B, T\)"),
        (lambda: Lineage.tree(torch.tensor([[0, 1]])), "left of their children"),
        (lambda: Lineage.tree(torch.tensor([[-2]])), "left of their children"),
    ],
)
def test_bad_lineages(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_prefix_counts_tokens_not_columns():
    valid = torch.tensor([[False, True, True, True], [True, False, True, False]])
    lineage = Lineage.padded(valid).with_prefix(torch.tensor([2, 1]))
    assert lineage.prefix.tolist() == [[False, True, True, False], [True, False, False, False]]
    assert lineage.at(torch.tensor([3, 0])).to("cpu").prefix is not None
    assert Lineage.sequence(1, 3).with_prefix(torch.tensor([3])).is_plain


@pytest.mark.parametrize("lengths", [[3, 0], [1], [-1, 0]])
def test_impossible_prefixes(lengths):
    lineage = Lineage.padded(torch.tensor([[True, True, False], [False, False, True]]))
    with pytest.raises(ValueError, match="prefix lengths must be one per row"):
        lineage.with_prefix(torch.tensor(lengths))


def test_only_plain_and_padded_rows_have_a_prefix():
    for lineage in (Lineage.tree(torch.tensor([[-1]])), Lineage.packed(torch.tensor([[0, 1]]))):
        with pytest.raises(ValueError, match="a prefix needs a sequence or padded rows"):
            lineage.with_prefix(torch.tensor([1]))
