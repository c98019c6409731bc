"""Independent: several chains, each drawn by itself; what they begin with alike is one path of the tree.

Paper: "SpecTr: Fast Speculative Decoding via Optimal Transport" (2023, 2310.15141), the k drafts of its section 4.

    x^(c)_i ~ q( . | x^(c)_1, .., x^(c)_{i-1}),  c = 1..k, i = 1..budget               (1)

| code | paper |
|---|---|
| chains | k |

A token that two chains draw after the same path stands twice among the siblings, as `spectr` needs it: what follows
either is hung below the first. With a rule that shares the row's noise the first chain is that of `chain`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from runnel.draft import Draw
from runnel.trees import ROOT, Growth, Sketch, TreeBuilder

PAPERS = {"SpecTr: Fast Speculative Decoding via Optimal Transport": "2310.15141"}


@dataclass(frozen=True)
class Config:
    """chains >= 1."""

    chains: int = 3

    def __post_init__(self) -> None:
        if self.chains < 1:
            raise ValueError(f"chains must be at least 1; got {self.chains}")


class Independent(TreeBuilder):
    config: Config

    def grow(self, sketch: Sketch, draw: Draw, budget: int) -> Growth:
        sketch.independent = True
        ends = [ROOT] * self.config.chains
        for ahead in range(budget):
            nodes = list(dict.fromkeys(ends))
            answers = yield nodes
            after = dict(zip(nodes, answers, strict=True))
            first: dict[tuple[int, int], int] = {}
            for chain, node in enumerate(ends):
                token = draw(after[node], ahead, sketch.path(node), branch=chain)  # eq. (1)
                new = sketch.add(token, node, after[node])
                ends[chain] = first.setdefault((node, token), new)


def reference(law: Callable[[Sequence[int]], Tensor], draw: Draw, chains: int, length: int) -> list[list[int]]:
    """The chains, one after another."""
    found = []
    for chain in range(chains):
        path: list[int] = []
        for ahead in range(length):
            path.append(draw(law(path), ahead, path, branch=chain))
        found.append(path)
    return found
