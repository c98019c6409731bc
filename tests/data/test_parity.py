"""Parity: the target is the exclusive or of all bits so far."""

from __future__ import annotations

from runnel.data.parity import Config, Source
from runnel.types import IGNORE


def test_targets_are_running_parities() -> None:
    batch = Source(Config(), length=33, batch_size=20).batch(4)
    for bits, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        parity = 0
        for bit, target in zip(bits, targets, strict=True):
            parity ^= bit
            assert target == parity
    assert 0.4 < batch.targets.double().mean() < 0.6


def test_only_the_last_target() -> None:
    every = Source(Config(), length=10, batch_size=5).batch(0)
    last = Source(Config(targets="last"), length=10, batch_size=5).batch(0)
    assert last.inputs.equal(every.inputs)
    assert last.targets[:, -1].equal(every.targets[:, -1])
    assert bool((last.targets[:, :-1] == IGNORE).all())
