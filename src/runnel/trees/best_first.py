"""Best first: every next node is drawn where a draft is likeliest to be accepted, until the tree is full.

Paper: "DySpec: Faster Speculative Decoding with Dynamic Token Tree Structure" (2024, 2410.11744), algorithm 1.

    open places: below a node, after its r earlier children; the root's has value v = 1                (1)
    take the place of largest v, draw y ~ R, the drafter's law without the earlier children            (2)
    the place below y gets v R(y)^trust, the place beside y gets v (1 - R(y)^trust)                    (3)

v estimates how likely it is that a draft hung at the place is accepted, R(y)^trust standing for the chance of
acceptance. A place is chosen before its token is drawn, so that the law of every draft is what it was.

| code | paper |
|---|---|
| nodes | the budget of the tree |
| chances | R before any child was taken |

Deviates: the paper has trust = 1. But where many tokens are right, each is improbable, and a drafter that is nearly the
target is accepted far more often than R says: with trust = 1 a chain is then accepted further than this tree, with the
default it is not (`tests/decoding/test_accepted.py` prints both). With trust = 0 the tree is a chain. With a rule that
shares the row's noise, the noise is part of R (see `Draw.chances`). The drafter is asked about one node at a time (of
every row), as in algorithm 1; the paper's variant by thresholds asks about whole levels.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from runnel.draft import Draw
from runnel.trees import ROOT, Growth, Sketch, TreeBuilder, ranked

PAPERS = {"DySpec: Faster Speculative Decoding with Dynamic Token Tree Structure": "2410.11744"}


@dataclass(frozen=True)
class Config:
    """nodes >= 1. trust >= 0: 1 believes the drafter's law; less, and small probabilities count for more."""

    nodes: int = 16
    trust: float = 0.5

    def __post_init__(self) -> None:
        if self.nodes < 1:
            raise ValueError(f"nodes must be at least 1; got {self.nodes}")
        if self.trust < 0:
            raise ValueError(f"trust must be at least 0; got {self.trust}")


class BestFirst(TreeBuilder):
    config: Config

    def grow(self, sketch: Sketch, draw: Draw, budget: int) -> Growth:
        heap = [(-1.0, 0, ROOT)]  # (-v, number of the entry, node): the older of equal ones first
        entries = 0
        children: dict[int, _Children] = {}
        while heap and len(sketch.tokens) < self.config.nodes:
            value, _, parent = heapq.heappop(heap)
            if parent not in children:
                logits = (yield [parent])[0]
                path = sketch.path(parent)
                scores, chances = (of(logits, len(path), path) for of in (draw.scores, draw.chances))
                children[parent] = _Children(logits, ranked(scores, self.config.nodes), chances)
            own = children[parent]
            if not own.order:
                continue
            token, chance = own.take(self.config.trust)  # eq. (2)
            node = sketch.add(token, parent, own.logits)
            places = [(value * (1 - chance), parent)]
            if sketch.depth(node) < budget:
                places.append((value * chance, node))
            for v, place in places:  # eq. (3)
                entries += 1
                if v < 0:
                    heapq.heappush(heap, (v, entries, place))


@dataclass
class _Children:
    """What may still be drawn below a node, in order, with the mass that is left of its law."""

    logits: Tensor
    order: list[int]
    chances: Tensor
    left: float = 1.0

    def take(self, trust: float) -> tuple[int, float]:
        """The next token y and R(y)^trust."""
        token = self.order.pop(0)
        mass = float(self.chances[token])
        chance = min(1.0, mass / self.left) if self.left > 0 else 0.0
        self.left -= mass
        return token, chance**trust


def reference(
    law: Callable[[Sequence[int]], Tensor], draw: Draw, nodes: int, depth: int, trust: float = 0.5
) -> list[tuple[int, ...]]:
    """The paths of the nodes in the order in which they are drawn: all open places are looked at for each."""
    found: list[tuple[int, ...]] = []
    places: dict[tuple[tuple[int, ...], int], float] = {((), 0): 1.0}  # (path, earlier children): v
    while len(found) < nodes and max(places.values(), default=0.0) > 0:
        path, rank = max(places, key=lambda place: places[place])
        value = places.pop((path, rank))
        logits = law(path)
        chances = draw.chances(logits, len(path), path).tolist()
        order = ranked(draw.scores(logits, len(path), path), nodes)
        if rank < len(order):
            left = 1 - sum(chances[token] for token in order[:rank])
            chance = (chances[order[rank]] / left) ** trust
            found.append((*path, order[rank]))
            places[path, rank + 1] = value * (1 - chance)
            if len(path) + 1 < depth:
                places[found[-1], 0] = value * chance
    return found
