"""Without replacement: the same number of children below every node of a level, no two of them equal.

Paper: "Recursive Speculative Decoding: Accelerating LLM Inference via Sampling Without Replacement" (2024, 2402.14160),
RSD-C, section 3.2.1.

    x_1, .., x_b = the b largest of log q(v) + G_v  (Gumbel-top-k)                     (1)
    every node of depth d has b_{d+1} children, in this order                          (2)

| code | paper |
|---|---|
| branching | b, the constants of the levels |

The order of (1) is that of drawing one after another without those before, which `recursive_rejection` needs.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runnel.draft import Draw
from runnel.trees import Growth, Sketch, TreeBuilder, grow_ranks

PAPERS = {
    "Recursive Speculative Decoding: Accelerating LLM Inference via Sampling Without Replacement": "2402.14160",
}


@dataclass(frozen=True)
class Config:
    """branching: how many children a node of each depth has, the root's first; each at least 1."""

    branching: Sequence[int] = (3, 2, 1, 1)

    def __post_init__(self) -> None:
        if not self.branching or min(self.branching) < 1:
            raise ValueError(f"branching must be numbers of at least 1; got {self.branching!r}")


class WithoutReplacement(TreeBuilder):
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        depths = range(1, len(config.branching) + 1)
        levels = [itertools.product(*[range(count) for count in config.branching[:depth]]) for depth in depths]
        self.shape = [ranks for level in levels for ranks in level]

    def grow(self, sketch: Sketch, draw: Draw, budget: int) -> Growth:
        return grow_ranks(self.shape, sketch, draw, budget)


def reference(law: Tensor, count: int) -> dict[tuple[int, ...], float]:
    """The probability of all ordered children of a node whose law is (V,), by drawing one after another."""
    found: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(count):
        found = {
            (*drawn, token): p * float(left[token] / left.sum())
            for drawn, p in found.items()
            for left in [law.index_fill(0, torch.tensor(drawn, dtype=torch.long), 0.0)]
            for token in range(law.numel())
            if left[token] > 0
        }
    return found
