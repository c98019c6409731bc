"""Batches of samples that are about equally long, twice over."""

import numpy as np
import pytest

from runnel.packings.buckets import Config, batches, edges, largest_batch, padding, reference


def long_tailed(count=3000, seed=0):
    rng = np.random.default_rng(seed)
    inputs = np.clip(rng.lognormal(5, 0.9, count), 10, 4000).astype(int)
    outputs = np.clip(inputs * rng.uniform(0.05, 0.3, count), 1, 1000).astype(int)
    return list(zip(inputs.tolist(), outputs.tolist(), strict=True))


def fits(samples, inputs, outputs):
    return samples * (inputs + outputs) <= 20_000


def test_padding_falls_from_more_than_half_to_less_than_a_tenth():
    lengths = long_tailed()
    order = np.random.default_rng(0).permutation(len(lengths))
    at_random = [order[at : at + 8].tolist() for at in range(0, len(order), 8)]
    plan = batches(lengths, fits, Config(inputs=24, outputs=4))
    assert padding(lengths, at_random) > 0.5
    assert padding(lengths, plan) < 0.1
    assert padding(lengths, batches(lengths, fits, Config(inputs=24, outputs=1))) > padding(lengths, plan)
    assert sorted(index for batch in plan for index in batch) == list(range(len(lengths)))
    for batch in plan:
        longest = np.array(lengths)[batch].max(0)
        assert fits(len(batch), *longest)


def test_the_order_is_the_seed_and_the_epoch():
    lengths = long_tailed(300)
    assert batches(lengths, fits, Config(seed=1)) == batches(lengths, fits, Config(seed=1))
    assert batches(lengths, fits, Config(seed=1)) != batches(lengths, fits, Config(seed=1), epoch=1)


def test_edges_are_the_reference():
    lengths = np.array([length for length, _ in long_tailed(500)])
    bounds = edges(lengths, 7)
    found = np.searchsorted(bounds, lengths).tolist()
    assert found == reference(lengths.tolist(), bounds.tolist())
    sums = np.bincount(found, lengths)
    assert len(sums) == 7 and sums.max() < 1.5 * sums.min()


def test_the_largest_batch_is_found_by_bisection():
    for limit in (1, 2, 7, 100):
        assert largest_batch(3, 4, lambda samples, i, o, limit=limit: samples <= limit, 100) == limit
    with pytest.raises(ValueError, match="30000 inputs and 1 outputs must fit"):
        largest_batch(30_000, 1, fits, 8)
    with pytest.raises(ValueError, match="inputs, outputs and largest_batch >= 1"):
        Config(inputs=0)
