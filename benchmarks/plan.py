"""Are a plan's layouts in the order of the measured ones? Four layouts of one model on two processes.

torchrun --nproc-per-node 2 benchmarks/plan.py [--pattern "gla*4"] [--d-model 256] [--length 512] [--rows 8]

Foreseen: `runnel plan --measure`, seconds of a step. Measured: the median of some rounds, gradients summed and
weights updated. Prints a table, on rank 0.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

import runnel
from runnel import catalog
from runnel.cli.plan import measured, workload
from runnel.objectives import next_token
from runnel.plans import Cluster, _calibration
from runnel.plans.redundant_sharding import Layout, estimate
from runnel.train import Mesh, Ranks, TrainConfig, optim, sharding
from runnel.types import Batch

VOCAB, MEMORY = 256, 8e9
LAYOUTS = {
    "rows shared": (Mesh(data=2), Layout(1, 1, 1, 1, False)),
    "rows shared, recomputed": (Mesh(data=2), Layout(1, 1, 1, 1, True)),
    "rows shared, weights cut": (Mesh(data=2), Layout(1, 2, 2, 2, False)),
    "sequences cut": (Mesh(sequence=2), Layout(2, 1, 1, 1, False)),
}


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--pattern", default="gla*4")
    options.add_argument("--d-model", type=int, default=256)
    options.add_argument("--length", type=int, default=512)
    options.add_argument("--rows", type=int, default=8)
    options.add_argument("--rounds", type=int, default=7)
    asked = options.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    cluster = Cluster(_calibration.this_machine(MEMORY, 2), 2)
    work = workload(asked.pattern, asked.d_model, None, VOCAB, asked.length, asked.rows)
    work, config = measured(work, asked.pattern, None)
    foreseen = {name: estimate(work, cluster, layout, config).seconds for name, (_, layout) in LAYOUTS.items()}
    steps = {name: prepared(asked, mesh, layout) for name, (mesh, layout) in LAYOUTS.items()}
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(asked.rounds + 1):  # in turn, so that what else the machine does meets all alike
        for name, step in steps.items():
            taken[name].append(step())
    if dist.get_rank() == 0:
        print(f"{cluster.flops:.3g} operations a second, {cluster.speed(2):.3g} bytes a second between processes")
        print("| layout | foreseen | measured |\n|---|---|---|")
        for name in sorted(foreseen, key=lambda name: foreseen[name]):
            print(f"| {name} | {foreseen[name]:.3f} s | {statistics.median(taken[name][1:]):.3f} s |")
    dist.destroy_process_group()


def prepared(asked: argparse.Namespace, mesh: Mesh, layout: Layout) -> Callable[[], float]:
    """A step of training, which says how long it took."""
    model, ranks = runnel.build(asked.pattern, VOCAB, asked.d_model, seed=0), placed(mesh)
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


def placed(mesh: Mesh) -> Ranks:
    """This process in a mesh."""
    devices = init_device_mesh("cpu", (mesh.data, mesh.sequence), mesh_dim_names=("data", "sequence"))
    page = catalog.page("layouts", "lasp2")
    exchange = page.Exchange(devices.get_group("sequence")) if mesh.sequence > 1 else None
    return Ranks(mesh, dist.get_rank(), devices, exchange)


if __name__ == "__main__":
    main()
