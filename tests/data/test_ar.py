"""AR(p): the stated optimum is what the true process scores on its own samples, from the first item on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from runnel.data.ar import Config, Source, levinson


@pytest.mark.parametrize("order", [1, 2, 5])
def test_optimum_is_what_the_true_process_scores(order: int) -> None:
    config = Config(order=order, noise=0.5)
    length = 20
    source = Source(config, length=length, batch_size=5000, seed=4)
    batch = source.batch(0)
    values = torch.cat([batch.inputs, batch.targets[:, -1:]], dim=1)[:, :, 0].double().numpy()
    nats = []
    for place in range(1, length + 1):
        seen = min(place, order)
        mean = values[:, place - seen : place][:, ::-1] @ source.predictors[seen]
        variance = source.variances[seen]
        nats.append(0.5 * (np.log(2 * np.pi * variance) + (values[:, place] - mean) ** 2 / variance))
    rows = np.mean(nats, axis=0)
    assert abs(rows.mean() - source.facts["optimal_nats"]) < 5 * rows.std() / len(rows) ** 0.5
    assert source.facts["entropy_rate_nats"] == pytest.approx(0.5 * np.log(2 * np.pi * np.e * 0.25))


def test_rows_are_stationary_from_the_first_item() -> None:
    source = Source(Config(order=3), length=30, batch_size=40_000, seed=1)
    variance = source.batch(0).inputs[:, :, 0].var(dim=0).numpy()
    assert np.abs(variance / source.variances[0] - 1).max() < 0.05


def test_levinson_by_hand() -> None:
    predictors, variances = levinson(np.array([0.5, -0.2]), noise=2.0)
    assert predictors[1] == pytest.approx([0.5])
    assert predictors[2] == pytest.approx([0.5 + 0.2 * 0.5, -0.2])
    assert variances == pytest.approx([4 / (0.75 * 0.96), 4 / 0.96, 4])


def test_values_are_finite_float32() -> None:
    batch = Source(Config(), length=16, batch_size=3).batch(0)
    assert batch.inputs.dtype == batch.targets.dtype == torch.float32
    assert batch.inputs.shape == (3, 16, 1)
    assert batch.inputs[:, 1:].equal(batch.targets[:, :-1])
    assert bool(batch.inputs.isfinite().all())
