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
from dataclasses import dataclass, fields

from runnel.plans import Cluster, Workload, divisors

PAPERS = {
    "InternEvo: Efficient Long-sequence Large Language Model Training via Hybrid Parallelism and Redundant "
    "Sharding": "2401.09149"
}


SAME = 0.005
"""Plans whose steps differ by a smaller share are told as equally fast."""


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
    """memory: bytes on one device, by part. sent: bytes that one device sends in a step, by what; links: by the link,
    inside a node or between nodes. seconds: a step's.
    """

    layout: Layout
    memory: dict[str, float]
    sent: dict[str, float]
    links: dict[str, float]
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
    return sorted(found, key=_order)


def _order(plan: Plan) -> tuple[bool, float, float, str]:
    memory = sum(plan.memory.values())
    return (not plan.fits, plan.seconds if plan.fits else memory, memory, str(plan.layout))


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
    memory = _memory(work, layout, config, rows)
    sent, links, seconds = _traffic(work, cluster, layout, config, rows)
    compute = _compute(work, cluster, layout, rows)
    hidden = seconds["parameters"] + seconds["gradients"]
    total = cluster.together(compute, hidden) + seconds["updates"] + seconds["sequence"]
    price, fits = total / 3600 * cluster.count * cluster.device.price, sum(memory.values()) <= cluster.device.memory
    return Plan(layout, memory, sent, links, compute, sum(seconds.values()), total, price, fits)


def _memory(work: Workload, layout: Layout, config: Config, rows: int) -> dict[str, float]:
    length = work.length / layout.sequence
    if work.measured:
        activations, states = rows * work.measured.kept(layout.sequence, length, layout.recompute), 0.0
    else:
        whole = rows * length * work.layers * work.d_model * config.activation
        inputs = rows * length * work.layers * work.d_model * config.recomputed
        activations = inputs + whole / work.layers if layout.recompute else whole  # one layer at a time
        states = rows * (layout.sequence * work.states + work.keys * work.length / max(work.attention, 1))
    return {
        "parameters": work.parameters * config.weight / layout.parameters,
        "gradients": work.parameters * config.gradient / layout.gradients,
        "optimizer": work.parameters * config.optimizer / layout.optimizer,
        "activations": activations,
        "logits": rows * length * work.outcomes * config.logits,
        "states": states,
    }


def _compute(work: Workload, cluster: Cluster, layout: Layout, rows: int) -> float:
    if work.measured:
        row = work.measured.seconds(layout.sequence, work.length / layout.sequence, layout.recompute)
        return rows * row + work.measured.update * work.parameters / layout.optimizer
    return work.flops * (4 / 3 if layout.recompute else 1) / (cluster.count * cluster.flops)


def _traffic(
    work: Workload, cluster: Cluster, layout: Layout, config: Config, rows: int
) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Bytes that one device sends in a step, by what they are and by link, and the seconds they take."""
    s, g, p = layout.sequence, layout.gradients, layout.parameters
    weights, gradients, outer = work.parameters * config.weight, work.parameters * config.gradient, cluster.count // g
    cut = layout.optimizer // p
    parts = {  # bytes, devices of a ring, and how far they stand apart
        "parameters": [(2 * weights * _share(p), p, 1)],
        "gradients": [(gradients * _share(g), g, 1), (2 * gradients / g * _share(outer), outer, g)],
        "updates": [(weights / p * _share(cut), cut, p)],
        "sequence": [(2 * rows * (work.states + work.keys * work.length / s) * (s - 1), s, 1)],
    }
    flows = [flow for part in parts.values() for flow in part]
    sent = {name: sum(size for size, *_ in flows) for name, flows in parts.items()}
    seconds = {name: sum(size / cluster.speed(*ring) for size, *ring in flows) for name, flows in parts.items()}
    if work.measured:
        seconds["sequence"] = 0.0  # it is in what was measured
    between = sum(size for size, *ring in flows if cluster.leaves(*ring))
    return sent, {"inside": sum(sent.values()) - between, "between": between}, seconds


def reasons(found: list[Plan]) -> list[str]:
    """Why the first plan is the best: for each thing that is cut, the best plan that cuts it otherwise."""
    best, told = found[0], []
    for axis in fields(Layout):
        value = getattr(best.layout, axis.name)
        other = next((plan for plan in found if getattr(plan.layout, axis.name) != value), None)
        if other is not None:
            told.append(f"{axis.name}={getattr(other.layout, axis.name)}: {_beside(other, best)}")
    return told


def _beside(other: Plan, best: Plan) -> str:
    """What speaks against a plan."""
    memory, held = sum(other.memory.values()), sum(best.memory.values())
    part = max(other.memory, key=lambda name: other.memory[name] - best.memory[name])
    if not other.fits:
        return f"{memory / held:.2f} times the memory, most of it more {part}, which does not fit"
    slower = other.seconds / best.seconds - 1
    if slower < SAME:
        return f"as fast, with {memory / held:.2f} times the memory"
    where = "computing" if other.compute - best.compute > other.communication - best.communication else "sending"
    return f"{slower:.0%} slower by {where}, with {memory / held:.2f} times the memory"


def _share(group: int) -> float:  # what a ring sends of a whole
    return (group - 1) / group


def reference(work: Workload, cluster: Cluster, config: Config) -> Layout | None:
    """The fastest layout that fits, by looking at every one."""
    fitting = [plan for layout in layouts(work, cluster) if (plan := estimate(work, cluster, layout, config)).fits]
    return min(fitting, key=_order).layout if fitting else None
