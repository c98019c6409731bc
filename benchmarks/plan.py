"""What a plan says beside what is: the order of four layouts, measured here, and ratios that papers have published.

torchrun --nproc-per-node 2 benchmarks/plan.py [--pattern "gla*4"] [--d-model 256] [--length 512] [--rows 8]
python benchmarks/plan.py --published

The first: foreseen is `runnel plan --measure`, seconds of a step; measured is the median of some rounds, gradients
summed and weights updated. Rank 0 prints a table and whether the order is the same. The second is arithmetic.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

import runnel
from runnel.cli._calibrated import arranged, measured
from runnel.cli.plan import parse_length, workload
from runnel.objectives import next_token
from runnel.plans import Cluster, Workload, _calibration
from runnel.plans._layouts import Layout, estimate
from runnel.plans.redundant_sharding import plans
from runnel.train import Mesh, Ranks, TrainConfig, opened, optim, sharding
from runnel.types import Batch

VOCAB, MEMORY = 256, 8e9
LAYOUTS = {
    "rows shared": (Mesh(data=2), Layout(1, 1, 1, 1, False)),
    "rows shared, recomputed": (Mesh(data=2), Layout(1, 1, 1, 1, True)),
    "rows shared, weights cut": (Mesh(data=2), Layout(1, 2, 2, 2, False)),
    "sequences cut": (Mesh(sequence=2), Layout(2, 1, 1, 1, False)),
}
HOP = 1e-5
"""Seconds that a message takes on its way, however small."""


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--published", action="store_true")
    options.add_argument("--pattern", default="gla*4")
    options.add_argument("--d-model", type=int, default=256)
    options.add_argument("--length", type=int, default=512)
    options.add_argument("--rows", type=int, default=8)
    options.add_argument("--rounds", type=int, default=15)
    asked = options.parse_args()
    if asked.published:
        published()
        return
    torch.set_num_threads(1)
    with opened(Mesh(data=2)) as ranks:
        beside(asked, ranks)


def beside(asked: argparse.Namespace, ranks: Ranks) -> None:
    """Foreseen and measured seconds of every layout."""
    cluster = Cluster(_calibration.this_machine(MEMORY, 2), 2)
    work = workload(asked.pattern, asked.d_model, None, VOCAB, asked.length, asked.rows)
    work, config = measured(work, asked.pattern, None, ranks)
    foreseen = {name: estimate(work, cluster, layout, config).seconds for name, (_, layout) in LAYOUTS.items()}
    steps = {name: prepared(asked, mesh, layout) for name, (mesh, layout) in LAYOUTS.items()}
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(asked.rounds + 1):  # in turn, so that what else the machine does meets all alike
        for name, step in steps.items():
            taken[name].append(step())
    if not ranks.is_first:
        return
    found = {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}
    print(f"{asked.pattern}: {cluster.speed(2):.3g} bytes a second between processes, {asked.rounds} rounds")
    print("| layout | foreseen | measured |\n|---|---|---|")
    for name in sorted(foreseen, key=lambda name: foreseen[name]):
        print(f"| {name} | {foreseen[name]:.3f} s | {found[name]:.3f} s |")
    swapped = [(a, b) for a in found for b in found if foreseen[a] < foreseen[b] and found[a] > found[b]]
    for a, b in swapped:
        print(f"not in order: {a} is measured {found[a] / found[b] - 1:.1%} slower than {b}")
    print("the foreseen order is the measured one" if not swapped else "the orders differ")


def prepared(asked: argparse.Namespace, mesh: Mesh, layout: Layout) -> Callable[[], float]:
    """A step of training, which says how long it took."""
    model, ranks = runnel.build(asked.pattern, VOCAB, asked.d_model, seed=0), arranged(mesh)
    assert ranks.devices is not None
    if layout.recompute:
        sharding.recompute(model)
    if layout.parameters > 1:
        sharding.shard(model, ranks.devices)
    (optimizer,) = optim.build_optimizers(model, TrainConfig(steps=1))
    tokens = torch.randint(0, VOCAB, (asked.rows, asked.length + 1), generator=torch.Generator().manual_seed(0))
    share = ranks.own(Batch(tokens[:, :-1], tokens[:, 1:]))

    def step() -> float:
        ranks.wait()
        started = time.perf_counter()
        model.zero_grad()
        next_token.loss(model, share.batch).backward()
        ranks.sum_gradients(model)
        optimizer.step()
        return ranks.largest(time.perf_counter() - started)

    return step


def published() -> None:
    """The runs of LASP-2 (2502.07563) and LASP (2404.02882), by a model of a billion parameters."""
    for name, devices, length in (("LASP-2", "64xA100", "2M"), ("LASP", "128xA100", "4M")):
        cluster = Cluster.parse(devices)
        work = workload("gla*16", 2048, None, 32_000, parse_length(length), 1)
        best = plans(work, cluster)[0]
        held = sum(best.memory.values()) / 1e9
        fits = "fits" if best.fits else "does not fit"
        print(f"{name}: {length} tokens on {devices}: {fits}, {held:.1f} GB a device, {best.seconds:.2f} s a step")
        if name == "LASP-2":
            ratios(work, cluster, best.layout, best.seconds)


def ratios(work: Workload, cluster: Cluster, layout: Layout, seconds: float) -> None:
    """How much slower two other exchanges are: keys and values round a ring, and states round a ring."""
    print("| how much faster than | foreseen | published |\n|---|---|---|")
    slices, passes = layout.sequence, 2  # forward and backward
    sent = passes * 2 * 2 * work.d_model * work.layers * work.length / slices * (slices - 1)  # keys, values; 16 bits
    ring = max(seconds, sent / cluster.speed(slices))  # it sends while it computes
    states = seconds + passes * work.layers * (slices - 1) * HOP  # as many bytes, but one after another
    print(f"| a ring of keys and values | {ring / seconds:.2f} | 1.37 |")
    print(f"| a ring of states (LASP) | {states / seconds:.2f} | 1.15 |")


if __name__ == "__main__":
    main()
