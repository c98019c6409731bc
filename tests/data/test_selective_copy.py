"""Selective copy: what is asked for is what stood among the filler, in order."""

from __future__ import annotations

import pytest

from runnel.data.selective_copy import Config, Source
from runnel.types import IGNORE


@pytest.mark.parametrize(("items", "length"), [(8, 64), (1, 2), (5, 10), (3, 200)])
def test_leaving_the_filler_out_solves_it(items: int, length: int) -> None:
    batch = Source(Config(items=items, symbols=5), length, batch_size=40).batch(0)
    for row, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        assert row[-items:] == [1] * items
        assert targets == [IGNORE] * (length - items) + [token for token in row if token >= 2]
        assert set(row[:-items]) <= {0, 2, 3, 4, 5, 6}


def test_places_are_spread_evenly() -> None:
    batch = Source(Config(items=4, symbols=3), length=44, batch_size=5000).batch(0)
    often = (batch.inputs[:, :40] >= 2).double().mean(0)
    assert bool(((often - 0.1).abs() < 0.025).all())
