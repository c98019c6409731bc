"""Groups for rows of many lengths: as good as trying everything, and better than groups of one size."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("scipy", reason="integer programs need scipy")

from runnel.plans._group_costs import Config, makespan
from runnel.plans.sequence_groups import assign, partitions, plan, reference

SMALL = Config(quadratic=1e-4, linear=1e-2, start=0.5, exchange=1e-2, memory=40, node=2, slower=10)


def test_the_integer_program_is_brute_force():
    rng = np.random.default_rng(0)
    for devices in (2, 4):
        for _ in range(4):
            lengths = rng.integers(2, 40, 5).tolist()
            if sum(lengths) > devices * SMALL.memory * 0.9:
                lengths = lengths[:2]
            assert plan(lengths, devices, SMALL).seconds == pytest.approx(reference(lengths, devices, SMALL), rel=1e-6)


def test_every_row_once_and_within_memory():
    lengths = [100, 60, 9, 8, 7, 7, 6, 5, 5, 4, 3, 3]
    found = plan(lengths, 8, SMALL)
    assert sorted(row for rows in found.rows for row in rows) == list(range(len(lengths)))
    assert sum(found.degrees) == 8
    for degree, rows in zip(found.degrees, found.rows, strict=True):
        assert sum(lengths[row] for row in rows) / degree <= SMALL.memory
    assert found.seconds == makespan(lengths, found.degrees, found.rows, SMALL)


def test_long_tails_end_sooner_than_with_groups_of_one_size():
    lengths, config = [36, *[4] * 10, *[3] * 6], replace(SMALL, memory=8)
    found = plan(lengths, 16, config)
    even = [assign(lengths, (size,) * (16 // size), config) for size in (1, 2, 4, 8, 16)]
    assert found.seconds < min(groups.seconds for groups in even if groups) * 0.95
    assert len(set(found.degrees)) > 1


def test_partitions_use_all_devices():
    assert sorted(partitions(4)) == [(1, 1, 1, 1), (2, 1, 1), (2, 2), (4,)]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"2 devices of 40 tokens each must hold .* 90 tokens"):
        plan([90], 2, SMALL)
    with pytest.raises(ValueError, match="memory >= 1"):
        Config(memory=0)
