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

from runnel.plans import Cluster, Workload, divisors
from runnel.plans._layouts import Config, Layout, Plan, estimate

PAPERS = {
    "InternEvo: Efficient Long-sequence Large Language Model Training via Hybrid Parallelism and Redundant "
    "Sharding": "2401.09149"
}


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
    cuts = [1] if work.shared else sizes
    for sequence in sizes:
        if work.length % sequence or work.rows % (cluster.count // sequence):
            continue
        for p, g, o in itertools.product(cuts, repeat=3):
            if g % p == 0 and o % g == 0:
                for recompute in (False, True):
                    yield Layout(sequence, p, g, o, recompute)


def reference(work: Workload, cluster: Cluster, config: Config) -> Layout | None:
    """The fastest layout that fits, by looking at every one."""
    fitting = [plan for layout in layouts(work, cluster) if (plan := estimate(work, cluster, layout, config)).fits]
    return min(fitting, key=_order).layout if fitting else None
