"""Delayed copy: the first symbols come back at the end, whatever the silence."""

from __future__ import annotations

import pytest

from runnel.data.delayed_copy import Config, Source
from runnel.types import IGNORE


@pytest.mark.parametrize(("items", "length"), [(8, 64), (1, 2), (3, 4096)])
def test_the_first_symbols_are_asked_for(items: int, length: int) -> None:
    batch = Source(Config(items=items, symbols=4), length, batch_size=20).batch(2)
    for row, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        assert row[items:] == [0] * (length - 2 * items) + [1] * items
        assert targets == [IGNORE] * (length - items) + row[:items]
    assert set(batch.inputs[:, :items].flatten().tolist()) == {2, 3, 4, 5}
