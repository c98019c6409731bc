"""Overwriting: the last value of a key is the answer, and the first one seldom is."""

from __future__ import annotations

import pytest

from runnel.data.key_overwriting import Config, Source
from runnel.types import IGNORE


@pytest.mark.parametrize(("keys", "values", "length"), [(4, 16, 64), (1, 2, 3), (5, 3, 15), (3, 8, 100)])
def test_a_table_solves_it(keys: int, values: int, length: int) -> None:
    batch = Source(Config(keys=keys, values=values), length, batch_size=40).batch(0)
    for row, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        written = row[(length - keys) % 2 : length - keys]
        table = dict(zip(written[0::2], written[1::2], strict=True))
        assert sorted(table) == sorted(row[-keys:]) == list(range(1, keys + 1))
        assert all(keys < value <= keys + values for value in table.values())
        assert targets == [IGNORE] * (length - keys) + [table[key] for key in row[-keys:]]


def test_the_first_value_of_a_key_is_no_answer() -> None:
    source = Source(Config(keys=4, values=16), length=132, batch_size=500)
    assert source.facts["writes_per_key"] == 16
    right = []
    for row, targets in zip(
        *(part.tolist() for part in (source.batch(0).inputs, source.batch(0).targets)), strict=True
    ):
        first = dict(zip(row[126::-2], row[127::-2], strict=True))
        right += [first[key] == target for key, target in zip(row[-4:], targets[-4:], strict=True)]
    assert sum(right) / len(right) < 0.15
