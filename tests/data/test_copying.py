"""Copying: after the mark comes the string, and a state must hold all of its bits."""

from __future__ import annotations

import pytest

from runnel.data.copying import Config, Source
from runnel.types import IGNORE


@pytest.mark.parametrize("length", [2, 9, 64])
def test_every_target_is_the_next_input_after_the_mark(length: int) -> None:
    source = Source(Config(symbols=8), length, batch_size=30)
    count = length // 2
    assert source.facts["string_bits"] == pytest.approx(3 * count)
    batch = source.batch(1)
    for row, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        assert row[count] == 0
        assert row[count + 1 : 2 * count] == row[: count - 1]
        assert targets == [IGNORE] * count + row[:count] + [IGNORE] * (length % 2)
        assert 0 not in row[:count]
