"""What groups of devices cost that read rows together; the formulas and letters are those of `sequence_groups`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runnel.plans import Cluster, Workload


@dataclass(frozen=True)
class Config:
    """Costs in any one unit of time; memory in tokens a device."""

    quadratic: float = 1e-6
    linear: float = 1e-3
    start: float = 0.1
    exchange: float = 2e-4
    memory: int = 65_536
    node: int = 8
    slower: float = 8.0

    def __post_init__(self) -> None:
        if self.memory < 1 or min(self.quadratic, self.linear, self.start, self.exchange) < 0:
            raise ValueError(f"sequence_groups needs memory >= 1 and costs >= 0; got {self}")


def costs(work: Workload, cluster: Cluster) -> Config:
    """The costs of a model's rows on a cluster: seconds, and the tokens that a device holds with recomputation."""
    device = cluster.device
    weights = work.parameters * 16 / cluster.count  # 16 bits of weight and gradient, 96 of the optimiser
    token = work.d_model * (2 * work.layers + 34) + 6 * work.outcomes
    heads = 16 * work.d_model * work.attention  # q, k, v and outputs in 16 bits, there and back
    return Config(
        quadratic=6 * work.attention * work.d_model / cluster.flops,
        linear=6 * work.matrices / cluster.flops,
        start=0.0,
        exchange=heads / cluster.speed(1),
        memory=max(1, int((device.memory - weights) / token)),
        node=device.node,
        slower=device.inside / device.between,
    )


def row_seconds(length: int, degree: int, config: Config) -> float:
    """What a row adds to the time of a group."""
    link = config.exchange * (config.slower if degree > config.node else 1)
    exchange = link * length * (degree - 1) / degree**2
    return (config.quadratic * length**2 + config.linear * length) / degree + exchange


def makespan(lengths: Sequence[int], degrees: Sequence[int], rows: Sequence[Sequence[int]], config: Config) -> float:
    """Until the last group is done."""
    groups = zip(degrees, rows, strict=True)
    return max(config.start + sum(row_seconds(lengths[k], degree, config) for k in mine) for degree, mine in groups)
