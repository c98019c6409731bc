"""Sorting: the targets are the symbols in ascending order."""

from __future__ import annotations

import pytest

from runnel.data.sorting import Config, Source
from runnel.types import IGNORE


@pytest.mark.parametrize(("symbols", "length"), [(32, 64), (2, 2), (5, 13), (4, 300)])
def test_targets_are_sorted(symbols: int, length: int) -> None:
    source, count = Source(Config(symbols=symbols), length, batch_size=50), length // 2
    batch = source.batch(0)
    for row, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        assert row[count] == 0
        assert targets[count : 2 * count] == sorted(row[:count])
        assert row[count + 1 : 2 * count] == sorted(row[:count])[:-1]
        assert [place for place, target in enumerate(targets) if target != IGNORE] == list(range(count, 2 * count))


@pytest.mark.parametrize("length", [16, 256])
def test_repeating_the_last_symbol_is_as_right_as_stated(length: int) -> None:
    source = Source(Config(symbols=8), length, batch_size=4000)
    batch = source.batch(0)
    asked = batch.targets != IGNORE
    right = float((batch.inputs == batch.targets)[asked].double().mean())
    assert right == pytest.approx(source.facts["repeat_accuracy"], abs=0.01)
