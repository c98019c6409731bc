"""Bytes that one process sends a layer and step, by the length of the row, beside the formula, as a table.

torchrun --nproc-per-node 2 recipes/bytes_sent.py [--longest 65536]

One row cut into slices, forward and backward of a layer of d_model 32 in float32. PyTorch's dispatcher counts what is
handed to collectives.
"""

from __future__ import annotations

import argparse
import os

import torch

import runnel
from runnel.layouts._traffic import Traffic
from runnel.objectives import next_token
from runnel.train import Mesh, Ranks, opened
from runnel.types import Batch

D_MODEL, VOCAB, FIRST = 32, 64, 1024
PATTERNS = ("mingru", "gla", "mamba2", "gated_deltanet", "attention")


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--longest", type=int, default=1 << 16)
    asked = options.parse_args()
    torch.set_num_threads(1)
    lengths = [FIRST << step for step in range((asked.longest // FIRST).bit_length())]
    with opened(Mesh(sequence=int(os.environ.get("WORLD_SIZE", "1")))) as ranks:
        table = {pattern: [sent(ranks, pattern, length) for length in lengths] for pattern in PATTERNS}
        if ranks.is_first:
            show(table, lengths, ranks.mesh.sequence)


def sent(ranks: Ranks, pattern: str, length: int) -> int:
    """Bytes of one forward and backward."""
    model = runnel.build(pattern, VOCAB, D_MODEL, seed=0, channel=None)
    tokens = torch.randint(0, VOCAB, (1, length + 1), generator=torch.Generator().manual_seed(0))
    share = ranks.own(Batch(tokens[:, :-1], tokens[:, 1:]))
    with Traffic() as traffic:
        next_token.loss(model, share.batch).backward()
    return traffic.total


def show(table: dict[str, list[int]], lengths: list[int], slices: int) -> None:
    print("| layer | " + " | ".join(f"{length // 1024}k" for length in lengths) + " |")
    print("|---" * (len(lengths) + 1) + "|")
    for pattern, counts in table.items():
        print(f"| `{pattern}` | " + " | ".join(f"{count:,}" for count in counts) + " |")
    formula = [f"{keys_and_values(length, slices):,}" for length in lengths]
    print("| keys and values, formula | " + " | ".join(formula) + " |")


def keys_and_values(length: int, slices: int) -> int:
    """2 (T / S) D numbers forward; backward a process sends its part of the gradients of all slices, 2 T D."""
    return 4 * (2 * length // slices * D_MODEL + 2 * length * D_MODEL)


if __name__ == "__main__":
    main()
