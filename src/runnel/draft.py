"""Draft: the values that drafters, tree builders and the loop hand to each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor


class Draw(Protocol):
    """The row's own way to pick a token. A drafter with a law of its own draws with it, so that it errs only where its
    law does.
    """

    def __call__(self, logits: Tensor, ahead: int, path: Sequence[int] = (), branch: int = 0) -> int:
        """The token that the row's decoder and noise would pick from logits (V,), `ahead` places after the next one.

        path: the tokens guessed for the places in between. They matter to a decoder that looks at the text; left out,
        the guess is only less likely to be right. branch: the same place and path are drawn for anew in every branch.
        """

    def scores(self, logits: Tensor, ahead: int, path: Sequence[int] = (), branch: int = 0) -> Tensor:
        """The scores (V,) whose largest that token has: log-probabilities, noise included. Their k largest are k draws
        without replacement.
        """

    def along(self, logits: Tensor) -> list[int]:
        """The tokens of the next n places, each after those before it, from logits (n, V)."""

    def chances(self, logits: Tensor, ahead: int, path: Sequence[int] = ()) -> Tensor:
        """How likely each token (V,) is to be picked, by all that may be known before it is drawn.

        A builder that decides by it whether to guess further, or where, leaves the law of every draw as it is.
        """


class Draft(NamedTuple):
    """A tree of guesses after the newest token of a row.

    tokens: the nodes. parents: for each the index of the node that it follows, an earlier one, or -1 for the newest
    token. logits: for each node the drafter's logits (V,) that it was drawn from by `Draw`; empty when nothing was
    drawn. Siblings stand in the order in which they were drawn: each without those before it, or, when the draft is
    `independent`, each from the whole law, so that a token may come twice. trust: how well founded the guesses are, in
    the drafter's own measure (the length of the match that is copied from); 0 where it cannot say. chances: for each
    node how likely it is to be right when the one above it is, where the drafter knows; else empty.
    """

    tokens: list[int]
    parents: list[int]
    logits: Sequence[Tensor | None] = ()
    independent: bool = False
    trust: int = 0
    chances: Sequence[float] = ()

    @classmethod
    def chain(cls, tokens: Sequence[int], trust: int = 0, chances: Sequence[float] = ()) -> Draft:
        """One continuation, each token after the one before it."""
        return cls(list(tokens), list(range(-1, len(tokens) - 1)), trust=trust, chances=chances)

    @property
    def branches(self) -> bool:
        """Whether it is more than one path."""
        return self.parents != list(range(-1, len(self.parents) - 1))

    def first_path(self) -> list[int]:
        """The nodes of the first guess, the first guess after it, and so on."""
        path, last = list[int](), -1
        for node, parent in enumerate(self.parents):
            if parent == last:
                path.append(node)
                last = node
        return path

    def part(self, nodes: Sequence[int]) -> Draft:
        """These nodes, in order; with a node, all above it must be among them."""
        if len(nodes) == len(self.tokens):
            return self
        if not nodes or nodes[-1] == len(nodes) - 1:  # the first ones
            own = slice(len(nodes))
            tokens, parents, logits, chances = self.tokens[own], self.parents[own], self.logits[own], self.chances[own]
            return self._replace(tokens=tokens, parents=parents, logits=logits, chances=chances)
        at = {-1: -1} | {node: place for place, node in enumerate(nodes)}
        return self._replace(
            tokens=[self.tokens[node] for node in nodes],
            parents=[at[self.parents[node]] for node in nodes],
            logits=[self.logits[node] for node in nodes] if self.logits else (),
            chances=[self.chances[node] for node in nodes] if self.chances else (),
        )


class Seen(NamedTuple):
    """What the model said of a row's tree in a round.

    tokens, parents: the nodes, the newest token first. path: the nodes that were accepted, the newest token first.
    logits (N, V) float64 on the CPU and hidden (N, D), the vectors that the head saw: after every node.
    """

    tokens: list[int]
    parents: list[int]
    path: list[int]
    logits: Tensor
    hidden: Tensor
