"""Acceptance: which drafted tokens become text, one rule a file.

A page defines a frozen `Config`, an `Acceptance`, `LOSSLESS` (whether the law of the text is that of plain decoding)
and `PAPERS`. A rule moves walks (`runnel.rows.Walk`) down their trees until they end; it sees laws, never an
architecture. A lossy rule says how far it may go from the law, and gives the bound that it measured.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from runnel.decoders import Decoder
from runnel.rows import Walk


class Acceptance(ABC):
    """A rule. shares_noise: drafters draw with the noise of plain decoding, not with noise of their own."""

    shares_noise = False

    def __init__(self, config: Any) -> None:
        self.config = config

    def accept(self, walks: Sequence[Walk]) -> None:
        """Move every walk until it ends."""
        for walk in walks:
            while walk.walking:
                self.step(walk)

    @abstractmethod
    def step(self, walk: Walk) -> None:
        """Move one walk on by at least one token: `walk.go(child)` or `walk.end(token)`."""

    def check(self, decoder: Decoder) -> None:
        """ValueError for a decoder whose text this rule cannot write."""
        return


class Lossy(Acceptance):
    """A rule that may leave the law of plain decoding, and says how far it went.

    drifts: for every token that it wrote, a number whose mean over the noise is at least the total variation distance
    of the token's law from that of plain decoding, given the text before it.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.drifts: list[float] = []

    def bound(self) -> float:
        """Mean distance per token, at most. Times its length it bounds the distance of a text's law, as distances of
        laws in a row add up.
        """
        return sum(self.drifts) / max(1, len(self.drifts))


def offered(walk: Walk, law: Tensor) -> None:
    """Write one token of a law (V,): try the children in turn, each against what the ones before it left of the law.

    See `runnel.acceptance.recursive_rejection`.
    """
    left = law
    drawn: list[int] = []
    for child, chance in zip(walk.children, walk.chances(len(walk.children)), strict=True):
        token, proposed = walk.token(child), proposal(walk, child, drawn=drawn)
        if chance * float(proposed[token]) < float(left[token]):
            walk.go(child)
            return
        left = residual(left, proposed)
        if walk.forest.guessed_from[child] is not None:
            drawn.append(token)
    walk.end(walk.draw(left))


def picked(walk: Walk) -> int:
    """The token that plain decoding writes here, with the row's noise."""
    row = walk.row
    return row.decoder.pick(walk.logits[None], [row.seed], [row.position], [row.text()])[0]


def proposal(walk: Walk, child: int, below: Sequence[int] = (), drawn: Sequence[int] = ()) -> Tensor:
    """The law (V,) that a child of the walk's node (or of the last node `below`) was proposed from, once the siblings
    `drawn` were. It is one at the token when that was given, not drawn, or has no mass left.
    """
    token, law = walk.token(child), walk.draft_law(child, below)
    if law is not None:
        left = law.index_fill(0, torch.tensor(drawn, dtype=torch.long), 0.0)
        if left[token] > 0:
            return left / left.sum()
    return torch.zeros_like(walk.logits).index_fill_(0, torch.tensor(token), 1.0)


def residual(law: Tensor, taken: Tensor) -> Tensor:
    """max(0, law - taken), normalised: what is left of probabilities (V,) after others; the law where nothing is."""
    rest = (law - taken).clamp(min=0)
    total = rest.sum()
    return rest / total if total > 0 else law
