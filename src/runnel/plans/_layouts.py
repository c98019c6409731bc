"""What one layout of a run needs: memory, traffic, time; the formulas and letters are those of `redundant_sharding`."""

from __future__ import annotations

from dataclasses import dataclass

from runnel.plans import Cluster, Sending, Workload


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
    held = rows * length * work.outcomes
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
        "logits": (held if work.logits is None else min(held, work.logits)) * config.logits,
        "states": states,
    }


def _compute(work: Workload, cluster: Cluster, layout: Layout, rows: int) -> float:
    if work.measured:
        row = work.measured.seconds(layout.sequence, work.length / layout.sequence, layout.recompute)
        return work.accumulate * rows * row + work.measured.update * work.parameters / layout.optimizer
    return work.flops * (4 / 3 if layout.recompute else 1) / (cluster.count * cluster.flops)


def _traffic(
    work: Workload, cluster: Cluster, layout: Layout, config: Config, rows: int
) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Bytes that one device sends in a step, by what they are and by link, and the seconds they take. Weights that are
    cut are gathered for every micro-batch, and gradients summed.
    """
    times = work.accumulate
    s, g, p = layout.sequence, layout.gradients, layout.parameters
    weights, gradients, outer = work.parameters * config.weight, work.parameters * config.gradient, cluster.count // g
    cut, pace = layout.optimizer // p, work.measured.sending if work.measured else Sending()
    parts = {
        "parameters": [_Flow(2 * times * weights * _share(p), pace.gather, p)],
        "gradients": [
            _Flow(times * gradients * _share(g), pace.scatter, g),
            _Flow(2 * times * gradients / g * _share(outer), pace.add, outer, g),
        ],
        "updates": [_Flow(weights / p * _share(cut), pace.gather, cut, p)],
        "sequence": [_Flow(2 * times * rows * (work.states + work.keys * work.length / s) * (s - 1), 0.0, s)],
    }
    flows = [flow for part in parts.values() for flow in part]
    sent = {name: sum(flow.size for flow in flows) for name, flows in parts.items()}
    seconds = {name: sum(flow.seconds(cluster) for flow in flows) for name, flows in parts.items()}
    if work.measured:
        seconds["sequence"] = 0.0  # it is in what was measured
    between = sum(flow.size for flow in flows if cluster.leaves(flow.ring, flow.apart))
    return sent, {"inside": sum(sent.values()) - between, "between": between}, seconds


@dataclass(frozen=True)
class _Flow:
    """Bytes, the seconds that each takes at least, the devices of a ring, and how far they stand apart."""

    size: float
    pace: float
    ring: int
    apart: int = 1

    def seconds(self, cluster: Cluster) -> float:
        return self.size * max(self.pace, 1 / cluster.speed(self.ring, self.apart))


def _share(group: int) -> float:  # what a ring sends of a whole
    return (group - 1) / group
