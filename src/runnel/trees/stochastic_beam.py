"""Stochastic beam: the draft paths of a level are drawn without replacement among all, however they share their nodes.

Paper: "Recursive Speculative Decoding: Accelerating LLM Inference via Sampling Without Replacement" (2024, 2402.14160),
RSD-S, section 3.2.2, on the stochastic beam search of "Stochastic Beams and Where to Find Them" (2019, 1903.06059).

    l(x) = l(parent) + log q(x | path),  g(x) = l(x) + G                               (1)
    z = max over the children of g                                                     (2)
    s(x) = -log(exp(-s(parent)) - exp(-z) + exp(-g(x))),  s(root) = 0                  (3)
    the next level is the `width` largest s among the children of this one             (4)

| code | paper |
|---|---|
| total, score | phi, psi |
| width | W |

(3) makes the first child as good as its parent, the others worse. A node without a child in (4) stays as a leaf. Of
siblings the order by s is that of drawing one after another, and whether a sibling is in (4) says nothing about which
token it holds: `recursive_rejection` may try them in turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.draft import Draw
from runnel.trees import ROOT, Growth, Sketch, TreeBuilder, ranked

PAPERS = {
    "Recursive Speculative Decoding: Accelerating LLM Inference via Sampling Without Replacement": "2402.14160",
}


@dataclass(frozen=True)
class Config:
    """width >= 1: the nodes of a level."""

    width: int = 4

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width must be at least 1; got {self.width}")


class Beam(NamedTuple):
    node: int
    total: float
    score: float


class StochasticBeam(TreeBuilder):
    config: Config

    def grow(self, sketch: Sketch, draw: Draw, budget: int) -> Growth:
        beams = [Beam(ROOT, 0.0, 0.0)]
        for ahead in range(budget):
            answers = yield [beam.node for beam in beams]
            found = []
            for beam, logits in zip(beams, answers, strict=True):
                path = sketch.path(beam.node)
                totals = beam.total + draw.chances(logits, ahead, path).log()
                scores = below(beam.total + draw.scores(logits, ahead, path), beam.score)
                for token in ranked(scores, self.config.width):
                    found.append((float(scores[token]), float(totals[token]), token, beam.node, logits))
            best = sorted(found, key=lambda child: -child[0])[: self.config.width]  # eq. (4)
            beams = [
                Beam(sketch.add(token, parent, logits), total, score) for score, total, token, parent, logits in best
            ]


def below(perturbed: Float[Tensor, "V"], score: float) -> Float[Tensor, "V"]:
    """Eq. (2) and (3) for the children of a node, without overflow (appendix B.3 of the 2019 paper)."""
    behind = score - perturbed + torch.log(-torch.expm1(perturbed - perturbed.max()))
    return score - behind.clamp(min=0) - torch.log1p(torch.exp(-behind.abs()))


def reference(
    law: Callable[[Sequence[int]], Tensor], draw: Draw, width: int, depth: int
) -> list[list[tuple[tuple[int, ...], float]]]:
    """Eq. (1) to (4) as they are written: for each level its paths with their scores, best first."""
    levels, beams = [], list[tuple[tuple[int, ...], float, float]]([((), 0.0, 0.0)])
    for ahead in range(depth):
        found: list[tuple[tuple[int, ...], float, float]] = []
        for path, total, score in beams:
            logits = law(path)
            g = (total + draw.scores(logits, ahead, path)).tolist()
            chances = draw.chances(logits, ahead, path).tolist()
            for token, chance in enumerate(chances):
                if chance > 0:
                    inner = math.exp(-score) - math.exp(-max(g)) + math.exp(-g[token])
                    found.append(((*path, token), total + math.log(chance), -math.log(inner)))
        beams = sorted(found, key=lambda beam: -beam[2])[:width]
        levels.append([(path, score) for path, _, score in beams])
    return levels
