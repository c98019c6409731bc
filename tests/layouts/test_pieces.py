"""Queries of a slice in pieces: the same outputs and gradients, and nothing kept that grows with the square."""

import pytest
import torch

from runnel.layouts import _pieces
from runnel.lineage import Lineage
from runnel.ops.attend import Call, KeyValues, of_columns
from runnel.plans._calibration import kept


def call_of(length, dtype=torch.float64, window=None, cap=None):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, length, 2, 4, dtype=dtype).unbind(0)
    segments = (torch.arange(length) >= length // 3).long().expand(2, -1)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    return Call(*leaves, KeyValues.empty(2, 2, 4, k), Lineage.packed(segments), window, 1, cap), leaves


@pytest.mark.parametrize(("window", "cap"), [(None, None), (4, None), (None, 2.0)])
@pytest.mark.parametrize("queries", [1, 5, 100])
def test_pieces_are_the_whole(monkeypatch, window, cap, queries):
    monkeypatch.setattr(_pieces, "QUERIES", queries)
    call, leaves = call_of(24, window=window, cap=cap)
    columns, found = slice(9, 22), []
    for attention in (of_columns, _pieces.in_pieces):
        y = attention(call, call.q[:, columns], columns)
        found.append([y, *torch.autograd.grad(y.sin().sum(), leaves)])
    for wanted, got in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


def test_what_is_kept_grows_with_the_length_not_its_square(monkeypatch):
    monkeypatch.setattr(_pieces, "QUERIES", 16)
    sizes = []
    for length in (64, 128, 256):
        call, leaves = call_of(length, torch.float32)
        columns = slice(length // 2, length)
        sizes.append(kept(lambda c=call, at=columns: _pieces.in_pieces(c, c.q[:, at], at), leaves))
    assert sizes[2] - sizes[1] <= 2 * (sizes[1] - sizes[0]) and sizes[2] < 256 * 256
