"""One training step on one row of a million tokens: peak memory, time, and the loss.

python recipes/million_tokens.py [--tokens 1000000] [--chunk 8192] [--pattern "gla*2"] [--d-model 64]
torchrun --nproc-per-node 2 recipes/million_tokens.py --pattern mingru --d-model 16

On one process a chunk of time is held at once. On several each holds its slice of the row (`--mesh sequence=2`), and
the first then takes the step alone as well, to say how far the two gradients are from each other.
"""

from __future__ import annotations

import argparse
import os
import resource
import time

import torch
from torch.nn.utils import get_total_norm, parameters_to_vector

import runnel
from runnel.model import Model
from runnel.objectives import next_token_in_chunks
from runnel.train import Mesh, opened, sharding
from runnel.train.over_time import backward
from runnel.types import Batch


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--tokens", type=int, default=1_000_000)
    options.add_argument("--chunk", type=int, default=8192)
    options.add_argument("--pattern", default="gla*2")
    options.add_argument("--d-model", type=int, default=64)
    asked = options.parse_args()
    torch.manual_seed(0)
    tokens = torch.randint(0, 256, (1, asked.tokens + 1))
    model = runnel.build(asked.pattern, 256, asked.d_model)
    batch = Batch(tokens[:, :-1], tokens[:, 1:])
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        split(model, batch, asked.chunk)
        return
    before, started = peak(), time.perf_counter()
    loss = backward(model, batch, asked.chunk, 1 / asked.tokens)
    print(f"{asked.tokens:,} tokens of {asked.pattern}, {asked.chunk} at once: {described(model, loss)}")
    print(f"{peak():.2f} GB at most, {before:.2f} GB before; {time.perf_counter() - started:.0f} s")


def split(model: Model, batch: Batch, chunk: int) -> None:
    """The step of several processes, and on the first that of one beside it."""
    with opened(Mesh(sequence=int(os.environ["WORLD_SIZE"]))) as ranks:
        before, started, share = peak(), time.perf_counter(), ranks.own(batch)
        sharding.recompute(model)
        loss = next_token_in_chunks.loss(model, share.batch) * (share.n_targets / batch.n_targets)
        loss.backward()
        ranks.sum_gradients(model)
        total, most, taken = ranks.total(loss.item()), ranks.largest(peak()), time.perf_counter() - started
        if ranks.is_first:
            print(f"{batch.n_targets:,} tokens on {ranks.mesh}: {described(model, total)}")
            print(f"{most:.2f} GB at most on a process, {before:.2f} GB before; {taken:.0f} s")
            gradient = gradients(model)
            model.zero_grad()
            backward(model, batch, chunk, 1 / batch.n_targets)
            print(f"largest difference from one process: {(gradients(model) - gradient).abs().max().item():.1e}")
        ranks.wait()


def described(model: Model, loss: float) -> str:
    return f"{loss:.4f} nats, gradient norm {get_total_norm([gradients(model)]):.4g}"


def gradients(model: Model) -> torch.Tensor:
    return parameters_to_vector([p.grad for p in model.parameters() if p.grad is not None])


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
