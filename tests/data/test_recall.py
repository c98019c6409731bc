"""Recall: the rows are solvable by looking the key up, and by nothing simpler."""

from __future__ import annotations

import numpy as np
import pytest

from runnel.data.recall import Config, Source
from runnel.types import IGNORE


@pytest.mark.parametrize(("pairs", "vocab", "length"), [(8, 64, 64), (4, 8, 16), (1, 2, 4), (16, 64, 256)])
def test_looking_the_key_up_solves_it(pairs: int, vocab: int, length: int) -> None:
    batch = Source(Config(pairs=pairs, vocab=vocab), length=length, batch_size=50).batch(0)
    for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        table = dict(zip(inputs[0 : 2 * pairs : 2], inputs[1 : 2 * pairs : 2], strict=True))
        asked = {place: target for place, target in enumerate(targets) if target != IGNORE}
        assert len(table) == len(set(table.values())) == pairs
        assert sorted(inputs[place] for place in asked) == sorted(table)
        assert min(asked) >= 2 * pairs
        assert all(table[inputs[place]] == target for place, target in asked.items())
        assert all(
            token >= vocab // 2 for place, token in enumerate(inputs[2 * pairs :], 2 * pairs) if place not in asked
        )


def test_gaps_follow_a_power_law() -> None:
    near = Source(Config(pairs=2, power=0.01), length=200, batch_size=2000).batch(0)
    flat = Source(Config(pairs=2, power=1), length=200, batch_size=2000).batch(0)
    places = [np.nonzero(b.targets.numpy() != IGNORE)[1].mean() for b in (near, flat)]
    assert places[0] < 60
    assert abs(places[1] - 101) < 4
