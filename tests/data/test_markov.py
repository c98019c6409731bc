"""Markov: the stated optimum is what the true chain scores on its own samples, and what counting finds."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from runnel.data.markov import Config, Source, stationary


def scores(source: Source, config: Config) -> np.ndarray:
    """(N, T) surprise in nats of each target under the true chain, for targets with a whole context."""
    batch = source.batch(0)
    items = np.concatenate([batch.inputs.numpy(), batch.targets.numpy()[:, -1:]], axis=1)
    context = sum(
        items[:, place : items.shape[1] - config.order + place] * config.vocab ** (config.order - 1 - place)
        for place in range(config.order)
    )
    return -np.log(source.transitions[context, items[:, config.order :]])


@pytest.mark.parametrize(("vocab", "order"), [(2, 1), (8, 1), (4, 2), (3, 3)])
def test_entropy_rate_is_what_the_true_chain_scores(vocab: int, order: int) -> None:
    config = Config(vocab=vocab, order=order)
    source = Source(config, length=100, batch_size=2000, seed=1)
    rows = scores(source, config).mean(1)
    assert abs(rows.mean() - source.facts["entropy_rate_nats"]) < 5 * rows.std() / len(rows) ** 0.5


def test_optimum_counts_the_short_contexts_of_a_rows_start() -> None:
    config = Config(vocab=3, order=3)
    source = Source(config, length=2, batch_size=100_000, seed=2)
    batch = source.batch(0)
    items = np.concatenate([batch.inputs.numpy(), batch.targets.numpy()[:, -1:]], axis=1)
    blocks = []
    for m in (1, 2, 3):
        law = np.bincount(items[:, :m] @ 3 ** np.arange(m), minlength=3**m) / len(items)
        blocks.append(-(law[law > 0] * np.log(law[law > 0])).sum())
    assert abs(source.facts["optimal_nats"] - (blocks[2] - blocks[0]) / 2) < 0.01
    assert abs(source.facts["unigram_nats"] - blocks[0]) < 0.01
    assert source.facts["entropy_rate_nats"] < source.facts["optimal_nats"] < source.facts["unigram_nats"]


def test_transitions_are_the_frequencies_of_the_samples() -> None:
    config = Config(vocab=4, order=1)
    source = Source(config, length=500, batch_size=1000, seed=3)
    batch = source.batch(0)
    counts = np.bincount((batch.inputs * 4 + batch.targets).flatten().numpy(), minlength=16).reshape(4, 4)
    seen = counts.sum(1, keepdims=True)
    deviation = np.sqrt(source.transitions * (1 - source.transitions) / seen)
    assert (np.abs(counts / seen - source.transitions) / deviation).max() < 5
    assert np.abs(counts.sum(1) / counts.sum() - source.stationary).max() < 0.01


def test_stationary_law_by_hand() -> None:
    law = stationary(np.array([[0.9, 0.1], [0.5, 0.5]]))
    assert law == pytest.approx([5 / 6, 1 / 6], abs=1e-12)
    uniform = Source(Config(vocab=5, concentration=1000), length=4, batch_size=1)
    assert uniform.facts["entropy_rate_nats"] == pytest.approx(log(5), abs=2e-3)
