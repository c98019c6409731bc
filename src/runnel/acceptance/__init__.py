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


def residual(law: Tensor, taken: Tensor) -> Tensor:
    """max(0, law - taken), normalised: what is left of probabilities (V,) after others; the law where nothing is."""
    rest = (law - taken).clamp(min=0)
    total = rest.sum()
    return rest / total if total > 0 else law


def one_hot(token: int, like: Tensor) -> Tensor:
    """The law (V,) of a token that was not drawn but given."""
    return torch.zeros_like(like).index_fill_(0, torch.tensor(token), 1.0)
