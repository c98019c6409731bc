"""Modular counting: the target is the number of ones so far, modulo m; parity is m = 2."""

from __future__ import annotations

import pytest

from runnel.data import parity
from runnel.data.modular_counting import Config, Source


@pytest.mark.parametrize("modulus", [2, 3, 7])
def test_targets_are_counts(modulus: int) -> None:
    batch = Source(Config(modulus=modulus), length=50, batch_size=20).batch(3)
    for bits, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        count = 0
        for bit, target in zip(bits, targets, strict=True):
            count = (count + bit) % modulus
            assert target == count
    assert set(batch.inputs.flatten().tolist()) == {0, 1}


def test_modulus_two_is_parity() -> None:
    own, other = (
        Source(Config(modulus=2), 20, 5, seed=4).batch(1),
        parity.Source(parity.Config(), 20, 5, seed=4).batch(1),
    )
    assert own.inputs.equal(other.inputs)
    assert own.targets.equal(other.targets)
