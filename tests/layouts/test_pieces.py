"""Queries of a slice in pieces: the same outputs and gradients, and nothing kept that grows with the square."""

import pytest
import torch

from runnel.layouts import _pieces
from runnel.lineage import Lineage
from runnel.ops.attend import Call, KeyValues, of_columns
from runnel.plans._calibration import kept


def call_of(length, packed, dtype=torch.float64, **options):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, length, 2, 4, dtype=dtype).unbind(0)
    segments = (torch.arange(length) >= length // 3).long().expand(2, -1)
    lineage = Lineage.packed(segments) if packed else Lineage.sequence(2, length)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    asked = {"window": None, "sinks": 0, "cap": None, **options}
    return Call(*leaves, KeyValues.empty(2, 2, 4, k), lineage, **asked), leaves


@pytest.mark.parametrize("options", [{}, {"window": 4}, {"window": 4, "sinks": 1}, {"cap": 2.0}], ids=str)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("queries", [1, 5, 100])
def test_pieces_are_the_whole(monkeypatch, packed, options, queries):
    monkeypatch.setattr(_pieces, "QUERIES", queries)
    call, leaves = call_of(24, packed, **options)
    columns, found = slice(9, 22), []
    for attention in (of_columns, _pieces.in_pieces):
        y = attention(call, call.q[:, columns], columns)
        found.append([y, *torch.autograd.grad(y.sin().sum(), leaves)])
    for wanted, got in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_kept_grows_with_the_length_not_its_square(monkeypatch, packed):
    monkeypatch.setattr(_pieces, "QUERIES", 16)
    sizes = []
    for length in (64, 128, 256):
        call, leaves = call_of(length, packed, torch.float32)
        columns = slice(length // 2, length)
        sizes.append(kept(lambda c=call, at=columns: _pieces.in_pieces(c, c.q[:, at], at), leaves))
    assert sizes[2] - sizes[1] <= 2 * (sizes[1] - sizes[0]) and sizes[2] < 256 * 256
