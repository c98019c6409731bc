"""A regular language: targets are the states of the automaton; permutations never forget, other maps mostly do."""

from __future__ import annotations

import numpy as np
import pytest

from runnel.data.regular_language import Config, Source


@pytest.mark.parametrize("maps", ["permutations", "any"])
def test_targets_are_the_states_of_the_automaton(maps: str) -> None:
    source = Source(Config(states=4, symbols=2, maps=maps), length=30, batch_size=20, seed=1)
    batch = source.batch(0)
    for symbols, states in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        state = 0
        for symbol, target in zip(symbols, states, strict=True):
            state = source.facts["moves"][symbol][state]
            assert target == state


def test_permutations_keep_states_apart_and_reach_them_evenly() -> None:
    for seed in range(5):
        source = Source(Config(states=5, symbols=3), length=200, batch_size=400, seed=seed)
        assert all(sorted(row) == list(range(5)) for row in source.moves.tolist())
        merged = np.arange(5)
        for symbol in source.batch(0).inputs[0].tolist():
            merged = source.moves[symbol][merged]
        assert len(set(merged.tolist())) == 5


def test_any_maps_forget_where_they_began() -> None:
    source = Source(Config(states=5, symbols=3, maps="any"), length=200, batch_size=1, seed=0)
    merged = np.arange(5)
    for symbol in source.batch(0).inputs[0].tolist():
        merged = source.moves[symbol][merged]
    assert len(set(merged.tolist())) < 5
