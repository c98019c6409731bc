"""Decoders: how the next token is picked from logits, one algorithm a file.

A page defines a frozen `Config`, a `Decoder`, `LOSSLESS` (whether its text is the same whatever the drafter) and
`PAPERS`. The loop that drafts, verifies and commits is `runnel.generation`; a decoder sees logits, never an
architecture.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor


class Decoder(ABC):
    """A rule that picks tokens. It must be a function of its arguments: that is what makes any drafter lossless."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def pick(self, logits: Tensor, seeds: Sequence[int], positions: Sequence[int]) -> list[int]:
        """logits (N, V) float64 on the CPU -> N tokens. Token n will stand at positions[n] of a row whose seed is
        seeds[n].
        """
