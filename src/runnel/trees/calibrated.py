"""Calibrated tree: the fixed tree of a given size that is accepted furthest, as measured on texts.

Paper: "Medusa: Simple LLM Inference Acceleration Framework with Multiple Decoding Heads" (2024, 2401.10774), section
2.3.3, "Searching for the Optimized Tree Construction".

    a_d(r) = how often the drafter's guess of rank r for the d-th token ahead is right             (1)
    A(r_1, .., r_d) = a_1(r_1) .. a_d(r_d),  the chance that the node is accepted                  (2)
    tree = add the node of largest A that can be added, until there are n                          (3)

| code | paper |
|---|---|
| accuracies | a_k^(i) |
| nodes | n |

The sum of (2) over the tree is the mean number of tokens accepted in a round, and (3) makes it the largest there is,
where the accuracies fall with the rank. A node can be added when its parent and the sibling before it are there.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from runnel.draft import Draw
from runnel.trees import Growth, Ranks, Sketch, TreeBuilder, grow_ranks

PAPERS = {"Medusa: Simple LLM Inference Acceleration Framework with Multiple Decoding Heads": "2401.10774"}


@dataclass(frozen=True)
class Config:
    """accuracies: for each place ahead and each rank, as `accuracies` measures them. nodes >= 1."""

    accuracies: Sequence[Sequence[float]]
    nodes: int = 16

    def __post_init__(self) -> None:
        if self.nodes < 1:
            raise ValueError(f"nodes must be at least 1; got {self.nodes}")
        if not self.accuracies or not all(0 <= a <= 1 for own in self.accuracies for a in own):
            raise ValueError(f"accuracies must be lists of numbers in [0, 1], one a place; got {self.accuracies!r}")


class Calibrated(TreeBuilder):
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.shape = calibrate(config.accuracies, config.nodes)

    def grow(self, sketch: Sketch, draw: Draw, budget: int) -> Growth:
        return grow_ranks(self.shape, sketch, draw, budget)


def calibrate(accuracies: Sequence[Sequence[float]], nodes: int) -> list[Ranks]:
    """Eq. (3): the nodes in the order in which they are added; fewer when there are no more."""
    tree: list[Ranks] = []
    heap: list[tuple[float, Ranks]] = [(-accuracies[0][0], (0,))] if accuracies[0] else []
    while heap and len(tree) < nodes:
        _, ranks = heapq.heappop(heap)
        tree.append(ranks)
        for new in ((*ranks, 0), (*ranks[:-1], ranks[-1] + 1)):
            if len(new) <= len(accuracies) and new[-1] < len(accuracies[len(new) - 1]):
                heapq.heappush(heap, (-chance(accuracies, new), new))
    return tree


def chance(accuracies: Sequence[Sequence[float]], ranks: Ranks) -> float:
    """Eq. (2)."""
    return math.prod(accuracies[depth][rank] for depth, rank in enumerate(ranks))


def accuracies(logits: Float[Tensor, "D N V"], tokens: Int[Tensor, "D N"], ranks: int) -> list[list[float]]:
    """Eq. (1), measured at N places of texts that the target wrote.

    logits: what the drafter says of the d-th token after each place, when those before it are right; tokens: what they
    were. A draft model says the same of a token however far it is ahead: repeat its logits for every depth.
    """
    best = logits.topk(min(ranks, logits.shape[-1]), dim=-1).indices
    return (best == tokens[..., None]).double().mean(1).tolist()


def reference(accuracies: Sequence[Sequence[float]], nodes: int) -> float:
    """The largest mean number of accepted tokens, over all trees of `nodes` nodes."""
    every = [
        ranks
        for depth in range(1, len(accuracies) + 1)
        for ranks in itertools.product(*[range(len(own)) for own in accuracies[:depth]])
    ]
    trees = itertools.combinations(every, nodes)
    whole = [tree for tree in trees if all(not ranks[:-1] or ranks[:-1] in tree for ranks in tree)]
    return max(sum(chance(accuracies, ranks) for ranks in tree) for tree in whole)
