"""Sequence groups of different sizes: long rows over many devices, short ones over few, so that all end together.

Paper: "Data-Centric and Heterogeneity-Adaptive Sequence Parallelism for Efficient LLM Training" (2024, 2412.01523),
FlexSP.

    minimise C  subject to                                                                           (eq. 1-7)
        time_p = b1 + sum over rows k of A[k, p] ((a1 s_k^2 + a2 s_k) / d_p + s_k (d_p - 1) / (d_p^2 v_p)) <= C
        sum over k of A[k, p] s_k / d_p <= memory,   sum over p of A[k, p] = 1,   A[k, p] in {0, 1}
        the groups' sizes d_p are powers of two that use all devices
    rows of one length are one variable, a count: the bucketing of section 4.1.4                     (exact here)

| code | paper |
|---|---|
| degrees | d_p, sequence-parallel degree of group p |
| quadratic, linear, start | alpha_1, alpha_2, beta_1 of the cost model |
| exchange, slower | time to exchange a token inside a node; how much longer it takes in a group beyond one (1 / v_p) |
| memory | tokens that one device can hold, E / M_token |

For each way to cut the devices into groups the integer program is solved by HiGHS (`scipy.optimize.milp`); the best is
taken. Deviates: the ways are tried one by one, where the paper's program chooses among virtual groups in one go; and
rows are not first chunked into micro-batches.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from runnel.plans import Cluster
from runnel.plans._group_costs import Config, makespan, row_seconds

PAPERS = {
    "Data-Centric and Heterogeneity-Adaptive Sequence Parallelism for Efficient LLM Training": "2412.01523",
}


@dataclass(frozen=True)
class Groups:
    """degrees: devices of each group. rows: the rows (by index) that each reads. seconds: until the last is done."""

    degrees: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]
    seconds: float


def plan(lengths: Sequence[int], devices: int, config: Config | None = None) -> Groups:
    """The best groups for one step's rows. ValueError when a row, or all of them, do not fit in memory."""
    config = config or Config()
    if max(lengths) > devices * config.memory or sum(lengths) > devices * config.memory:
        raise ValueError(
            f"{devices} devices of {config.memory} tokens each must hold the rows of a step; they have "
            f"{sum(lengths)} tokens, the longest {max(lengths)}"
        )
    found = [assigned for degrees in partitions(devices) if (assigned := assign(lengths, degrees, config))]
    if not found:
        raise ValueError(f"no groups of {devices} devices of {config.memory} tokens each can hold the rows of a step")
    return min(found, key=lambda groups: (groups.seconds, groups.degrees))


def even(lengths: Sequence[int], cluster: Cluster, config: Config) -> Groups | None:
    """The best groups of one size; None when the rows fit into none."""
    sizes = [degrees for degrees in partitions(cluster.count) if len(set(degrees)) == 1]
    found = [groups for degrees in sizes if (groups := assign(lengths, degrees, config))]
    return min(found, key=lambda groups: groups.seconds, default=None)


def partitions(devices: int) -> Iterator[tuple[int, ...]]:
    """Powers of two that sum to the number of devices, largest first."""

    def below(left: int, most: int) -> Iterator[tuple[int, ...]]:
        if left == 0:
            yield ()
        while most:
            if most <= left:
                for rest in below(left - most, most):
                    yield (most, *rest)
            most //= 2

    yield from below(devices, 1 << (devices.bit_length() - 1))


def assign(lengths: Sequence[int], degrees: tuple[int, ...], config: Config) -> Groups | None:
    """The rows of each group, by integer programming; None when they do not fit."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    kinds = sorted(Counter(lengths).items(), reverse=True)
    count, groups = len(kinds), len(degrees)
    cost = np.array([[row_seconds(length, degree, config) for degree in degrees] for length, _ in kinds])
    size = np.array([[length / degree for degree in degrees] for length, _ in kinds])
    a_kind, a_group = np.eye(count).repeat(groups, axis=1), np.tile(np.eye(groups), count)
    constraints = [
        LinearConstraint(np.c_[a_kind, np.zeros(count)], [n for _, n in kinds], [n for _, n in kinds]),
        LinearConstraint(np.c_[a_group * size.ravel(), np.zeros(groups)], -np.inf, config.memory),
        LinearConstraint(np.c_[a_group * cost.ravel(), -np.ones(groups)], -np.inf, -config.start),
    ]
    whole = np.r_[np.ones(count * groups), 0]
    found = milp(np.r_[np.zeros(count * groups), 1], integrality=whole, bounds=Bounds(0), constraints=constraints)
    if not found.success:
        return None
    counts = found.x[:-1].round().astype(int).reshape(count, groups)
    waiting = {length: [i for i, other in enumerate(lengths) if other == length] for length, _ in kinds}
    rows = [
        [waiting[length].pop() for (length, _), n in zip(kinds, counts[:, p], strict=True) for _ in range(n)]
        for p in range(groups)
    ]
    return Groups(degrees, tuple(map(tuple, rows)), makespan(lengths, degrees, rows, config))


def reference(lengths: Sequence[int], devices: int, config: Config) -> float:
    """The shortest time there can be, by trying every group for every row."""
    best = np.inf
    for degrees in partitions(devices):
        for choice in itertools.product(range(len(degrees)), repeat=len(lengths)):
            rows = [[k for k, group in enumerate(choice) if group == p] for p in range(len(degrees))]
            held = [sum(lengths[k] for k in mine) / degree for degree, mine in zip(degrees, rows, strict=True)]
            if max(held) <= config.memory:
                best = min(best, makespan(lengths, degrees, rows, config))
    return float(best)
