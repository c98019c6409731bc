"""Template: a tree of one shape, whose nodes say which rank of the drafter's guesses to take.

Paper: "Medusa: Simple LLM Inference Acceleration Framework with Multiple Decoding Heads" (2024, 2401.10774), section
2.1.2, the tree of candidates.

    node (r_1, .., r_d) holds the token of rank r_d among those drawn after node (r_1, .., r_{d-1})    (1)

Rank 0 is what `chain` takes; rank r is drawn without the r tokens before it. `calibrated` chooses a shape by what was
measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from runnel.draft import Draw
from runnel.trees import Growth, Ranks, Sketch, TreeBuilder, grow_ranks

PAPERS = {"Medusa: Simple LLM Inference Acceleration Framework with Multiple Decoding Heads": "2401.10774"}


@dataclass(frozen=True)
class Config:
    """nodes: the ranks of every node's path; with a node, its parent and the sibling of the rank before."""

    nodes: Sequence[Ranks] = ((0,), (1,), (2,), (0, 0), (0, 1), (1, 0), (0, 0, 0), (0, 0, 1), (0, 0, 0, 0))

    def __post_init__(self) -> None:
        known = {(), *(tuple(ranks) for ranks in self.nodes)}
        for ranks in self.nodes:
            needed = [] if not ranks else [ranks[:-1]] if ranks[-1] == 0 else [(*ranks[:-1], ranks[-1] - 1)]
            missing = [before for before in needed if tuple(before) not in known]
            if not ranks or min(ranks) < 0 or missing:
                raise ValueError(f"nodes must be paths of ranks, with the one before each; got {ranks}")


class Template(TreeBuilder):
    config: Config

    def grow(self, sketch: Sketch, draw: Draw, budget: int) -> Growth:
        return grow_ranks([tuple(ranks) for ranks in self.config.nodes], sketch, draw, budget)


def reference(law: Callable[[Sequence[int]], Tensor], draw: Draw, nodes: Sequence[Ranks]) -> dict[Ranks, list[int]]:
    """Eq. (1): the tokens of every node's path, each path followed by itself."""
    paths = {}
    for ranks in nodes:
        path: list[int] = []
        for ahead, rank in enumerate(ranks):
            path.append(int(draw.scores(law(path), ahead, path).argsort(descending=True)[rank]))
        paths[ranks] = path
    return paths
