"""Tree builders: which guesses of a drafter with a law of its own become a draft tree, one builder a file.

A page defines a frozen `Config`, a `TreeBuilder` and `PAPERS`. A builder is a generator over one row: it yields the
nodes whose continuations it wants to know, is sent the drafter's logits after each, and hangs nodes below them. So the
rows of a batch are asked about in one call (`grow_all`), and a builder knows nothing of the drafter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Sequence
from typing import Any

from torch import Tensor

from runnel.draft import Draft, Draw

ROOT = -1
"""The newest token of the row, which is no node of the sketch."""


class Sketch:
    """A draft tree while it grows. independent: siblings are drawn independently of each other (see `Draft`)."""

    def __init__(self) -> None:
        self.independent = False
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.logits: list[Tensor] = []

    def add(self, token: int, parent: int, logits: Tensor) -> int:
        """Hang a token below a node. logits (V,): what it was drawn from. Returns the new node."""
        self.tokens.append(token)
        self.parents.append(parent)
        self.logits.append(logits)
        return len(self.tokens) - 1

    def path(self, node: int) -> list[int]:
        """The tokens from below the root down to a node."""
        tokens: list[int] = []
        while node != ROOT:
            tokens.append(self.tokens[node])
            node = self.parents[node]
        return tokens[::-1]

    def depth(self, node: int) -> int:
        return len(self.path(node))

    def draft(self) -> Draft:
        return Draft(self.tokens, self.parents, self.logits, self.independent)


Growth = Generator[list[int], Tensor, None]
"""Yields nodes of the sketch (`ROOT` among them), is sent the drafter's logits (len(nodes), V) after each."""


class TreeBuilder(ABC):
    """A builder."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def grow(self, sketch: Sketch, draw: Draw, budget: int) -> Growth:
        """Fill a sketch with paths of at most `budget` >= 1 nodes. draw: the row's own way to pick (see `Draw`)."""


Asked = dict[int, list[int]]
"""Nodes by row."""


def grow_all(
    builder: TreeBuilder,
    sketches: Sequence[Sketch],
    draws: Sequence[Draw],
    budgets: Sequence[int],
    after: Callable[[Asked], dict[int, Tensor]],
) -> None:
    """Grow the sketches of all rows in step. after: gives the logits after the nodes of each row, in one call."""
    growths = {
        row: builder.grow(sketch, draw, budget)
        for row, (sketch, draw, budget) in enumerate(zip(sketches, draws, budgets, strict=True))
        if budget > 0
    }
    answers: dict[int, Tensor | None] = dict.fromkeys(growths)
    while growths:
        asked: Asked = {}
        for row, growth in list(growths.items()):
            try:
                asked[row] = growth.send(answers[row])  # type: ignore[arg-type]  # None starts a generator
            except StopIteration:
                del growths[row]
        answers = dict(after(asked)) if asked else {}


def ranked(scores: Tensor, count: int) -> list[int]:
    """The tokens of the `count` largest finite scores (V,), largest first."""
    values, tokens = scores.topk(min(count, scores.numel()))
    return [token for token, value in zip(tokens.tolist(), values.tolist(), strict=True) if value > float("-inf")]


Ranks = tuple[int, ...]
"""A node by the ranks of its path: (0, 2) is the third child of the first child of the root."""


def grow_ranks(nodes: Collection[Ranks], sketch: Sketch, draw: Draw, budget: int) -> Growth:
    """Fill a sketch with the nodes of these ranks, level by level: child r of a node is the r-th token drawn there,
    without those before it. As far as the law has so many. The parent and the sibling before a node must be among them.
    """
    places: dict[Ranks, int] = {(): ROOT}
    for ahead in range(budget):
        wanted = sorted(ranks for ranks in nodes if len(ranks) == ahead + 1 and ranks[:-1] in places)
        parents = list(dict.fromkeys(ranks[:-1] for ranks in wanted))
        if not parents:
            return
        answers = yield [places[parent] for parent in parents]
        for parent, logits in zip(parents, answers, strict=True):
            children = [ranks for ranks in wanted if ranks[:-1] == parent]
            scores = draw.scores(logits, ahead, sketch.path(places[parent]))
            for ranks, token in zip(children, ranked(scores, len(children)), strict=False):
                places[ranks] = sketch.add(token, places[parent], logits)
