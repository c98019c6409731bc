"""Chain: one guess after another, each the token that the row would pick from the drafter's law.

Paper: "Fast Inference from Transformers via Speculative Decoding" (2022, 2211.17192), algorithm 1 (the drafting half).

    x_i = argmax_v (log q_i(v) + G_{t+i}(v)),  i = 1..budget                           (1)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from runnel.draft import Draw
from runnel.trees import ROOT, Growth, Sketch, TreeBuilder

PAPERS = {"Fast Inference from Transformers via Speculative Decoding": "2211.17192"}


@dataclass(frozen=True)
class Config:
    """A chain is as long as it may be: there is nothing to set."""


class Chain(TreeBuilder):
    def grow(self, sketch: Sketch, draw: Draw, budget: int) -> Growth:
        node = ROOT
        for ahead in range(budget):
            logits = (yield [node])[0]
            node = sketch.add(draw(logits, ahead, sketch.path(node)), node, logits)  # eq. (1)


def reference(law: Callable[[Sequence[int]], Tensor], draw: Draw, length: int) -> list[int]:
    """The tokens of the chain, from the drafter's logits after any path."""
    path: list[int] = []
    for ahead in range(length):
        path.append(draw(law(path), ahead, path))
    return path
