"""Needle: the value beside the asked key is the answer, and needles lie anywhere."""

from __future__ import annotations

import pytest

from runnel.data.needle import Config, Source
from runnel.types import IGNORE


@pytest.mark.parametrize(("needles", "length"), [(4, 64), (1, 4), (5, 12), (2, 500)])
def test_looking_beside_the_key_solves_it(needles: int, length: int) -> None:
    source = Source(Config(needles=needles, keys=6, values=7, filler=3), length, batch_size=50)
    batch = source.batch(0)
    for row, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        assert row[-2] == 0
        assert row.count(0) == 1
        places = [place for place, token in enumerate(row[:-1]) if 4 <= token < 10]
        table = {row[place]: row[place + 1] for place in places}
        assert len(places) == len(table) == len(set(table.values())) == needles
        assert all(10 <= value < 17 for value in table.values())
        assert sum(token >= 10 for token in row) == needles
        assert targets == [IGNORE] * (length - 1) + [table[row[-1]]]


def test_depths_and_questions_are_spread() -> None:
    source = Source(Config(needles=1, keys=2, values=2, filler=2), length=22, batch_size=8000)
    inputs = source.batch(0).inputs[:, :-2]
    often = (inputs >= source.first_value).double().mean(0)
    assert often[0] == 0
    assert bool(((often[1:] - 1 / 19).abs() < 0.015).all())
