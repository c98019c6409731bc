"""Redundant sharding: over how many devices to cut parameters, gradients, optimiser state and sequences, each alone.

Paper: "InternEvo: Efficient Long-sequence Large Language Model Training via Hybrid Parallelism and Redundant Sharding"
(2024, 2401.09149).

    memory = 2 P / z_p + 2 P / z_g + 12 P / z_o + activations(T / s)                                 (table 3)
    z_p, z_g, z_o from 1 (a whole replica) over a node to all devices: what is cut finely is kept redundantly less
    bytes a step: gather of parameters in groups of z_p, twice (forward and backward); reduction of gradients in groups
        of z_g and between them; gather of updated parameters from z_o to z_p; exchange within a sequence   (section 4)
    step = max(compute, what overlaps with it) + the rest                                            (section 5)

| code | paper |
|---|---|
| parameters, gradients, optimizer | the sharding factors of P, G, OS; z_p <= z_g <= z_o, each dividing the next |
| sequence | sp, the sequence-parallel size |
| replicas | the data-parallel size |

The search is over all combinations. Activations: 34 bytes a token, layer and width, or 2 with recomputation (2022,
2205.05198, in 16 bits), which costs a third more operations. Deviates: no tensor or pipeline parallelism; sequences are
exchanged as states and keys (LASP-2), where the paper exchanges heads; what overlaps is the parameter gathers and the
gradient reduction, up to the time of computing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from runnel.plans import Cluster, Workload, divisors

PAPERS = {
    "InternEvo: Efficient Long-sequence Large Language Model Training via Hybrid Parallelism and Redundant "
    "Sharding": "2401.09149"
}


@dataclass(frozen=True)
class Config:
    """Bytes a parameter: weight and gradient (16 bits each), optimiser (weight and two moments in 32 bits); bytes a
    token, layer and width: activations, and what recomputation keeps; bytes a logit (16 bits, and 32 in the loss).
    """

    weight: int = 2
    gradient: int = 2
    optimizer: int = 12
    activation: int = 34
    recomputed: int = 2
    logits: float = 6


@dataclass(frozen=True)
class Layout:
    """Over how many devices each thing is cut; `recompute`: activations are computed again in the backward pass."""

    sequence: int
    parameters: int
    gradients: int
    optimizer: int
    recompute: bool

    def __str__(self) -> str:
        cut = f"parameters/{self.parameters} gradients/{self.gradients} optimizer/{self.optimizer}"
        return f"sequence={self.sequence} {cut}" + (" recompute" if self.recompute else "")


@dataclass(frozen=True)
class Plan:
    """memory: bytes on one device, by part. sent: bytes that one device sends in a step, by what. seconds: a step's."""

    layout: Layout
    memory: dict[str, float]
    sent: dict[str, float]
    compute: float
    communication: float
    seconds: float
    price: float
    fits: bool


def plans(work: Workload, cluster: Cluster, config: Config | None = None) -> list[Plan]:
    """All layouts: those that fit first, the fastest first, then those that need the least memory."""
    config = config or Config()
    found = [estimate(work, cluster, layout, config) for layout in layouts(work, cluster)]
    if not found:
        rows = f"{work.rows} rows of {work.length} tokens"
        raise ValueError(f"{rows} must be shared evenly by {cluster.count} devices; they cannot")
    return sorted(found, key=lambda p: (not p.fits, p.seconds if p.fits else sum(p.memory.values()), str(p.layout)))


def layouts(work: Workload, cluster: Cluster) -> Iterator[Layout]:
    """Every way to cut that comes out even."""
    sizes = divisors(cluster.count)
    for sequence in sizes:
        if work.length % sequence or work.rows % (cluster.count // sequence):
            continue
        for p, g, o in itertools.product(sizes, repeat=3):
            if g % p == 0 and o % g == 0:
                for recompute in (False, True):
                    yield Layout(sequence, p, g, o, recompute)


def estimate(work: Workload, cluster: Cluster, layout: Layout, config: Config) -> Plan:
    """Memory, traffic and time of one layout."""
    rows = work.rows // (cluster.count // layout.sequence)
    tokens = rows * work.length / layout.sequence
    whole = work.activations(rows, work.length / layout.sequence, config.activation)
    inputs = tokens * work.layers * work.d_model * config.recomputed
    memory = {
        "parameters": work.parameters * config.weight / layout.parameters,
        "gradients": work.parameters * config.gradient / layout.gradients,
        "optimizer": work.parameters * config.optimizer / layout.optimizer,
        "activations": inputs + whole / work.layers if layout.recompute else whole,  # one layer at a time
        "logits": tokens * work.outcomes * config.logits,
        "states": work.remembered(rows, layout.sequence),
    }
    sent, seconds = _traffic(work, cluster, layout, config, rows)
    compute = work.flops * (4 / 3 if layout.recompute else 1) / (cluster.count * cluster.flops)
    hidden = seconds["parameters"] + seconds["gradients"]
    total = cluster.together(compute, hidden) + seconds["updates"] + seconds["sequence"]
    price, fits = total / 3600 * cluster.count * cluster.device.price, sum(memory.values()) <= cluster.device.memory
    return Plan(layout, memory, sent, compute, sum(seconds.values()), total, price, fits)


def _traffic(
    work: Workload, cluster: Cluster, layout: Layout, config: Config, rows: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Bytes that one device sends in a step and the seconds they take, by what they are."""
    s, g, p = layout.sequence, layout.gradients, layout.parameters
    weights, gradients, outer = work.parameters * config.weight, work.parameters * config.gradient, cluster.count // g
    between = (2 * gradients / g * _share(outer), cluster.count if outer > 1 else 1)
    parts = {
        "parameters": [(2 * weights * _share(p), p)],
        "gradients": [(gradients * _share(g), g), between],
        "updates": [(weights / p * _share(layout.optimizer // p), layout.optimizer)],
        "sequence": [(2 * rows * (work.states + work.keys * work.length / s) * (s - 1), s)],
    }
    sent = {name: sum(size for size, _ in flows) for name, flows in parts.items()}
    seconds = {name: sum(size / cluster.speed(group) for size, group in flows) for name, flows in parts.items()}
    return sent, seconds


def _share(group: int) -> float:  # what a ring sends of a whole
    return (group - 1) / group


def reference(work: Workload, cluster: Cluster, config: Config) -> Layout | None:
    """The fastest layout that fits, by looking at every one."""
    fitting = [plan for layout in layouts(work, cluster) if (plan := estimate(work, cluster, layout, config)).fits]
    return min(fitting, key=lambda plan: (plan.seconds, str(plan.layout))).layout if fitting else None
