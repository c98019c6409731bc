"""One training step on one row of a million tokens, in one process: peak memory, time, and the loss.

python recipes/million_tokens.py [--tokens 1000000] [--chunk 8192] [--pattern "gla*2"] [--d-model 64]
"""

from __future__ import annotations

import argparse
import resource
import time

import torch

import runnel
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
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    loss = backward(model, Batch(tokens[:, :-1], tokens[:, 1:]), asked.chunk, 1 / asked.tokens)
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{asked.tokens:,} tokens of {asked.pattern}, {asked.chunk} at once: {loss:.4f} nats, gradient norm {norm:.4g}"
    )
    print(f"{peak / 1e6:.2f} GB at most, {before / 1e6:.2f} GB before; {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
