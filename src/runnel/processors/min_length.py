"""Minimum length: the tokens that end a row cannot be written before so many others were.

    l'_v = -inf  if v ends the row and fewer than `length` tokens were written             (1)

Stop strings are not looked at: they are text, and text is free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from runnel.processors import Processor, Stage, Text

PAPERS: dict[str, str] = {}


@dataclass(frozen=True)
class Config:
    """length >= 0: tokens before the end token."""

    length: int

    def __post_init__(self) -> None:
        if self.length < 0:
            raise ValueError(f"min_length must be at least 0; got {self.length}")


class MinLength(Processor):
    config: Config
    stage = Stage.BAN

    def check(self, vocab_size: int, stops: frozenset[int], limit: int) -> None:
        if not stops:
            raise ValueError("min_length needs an eos: without one no token ends a text early")
        if self.config.length > limit:
            raise ValueError(f"min_length must be at most max_new_tokens, {limit}; got {self.config.length}")

    def process(self, logits: Tensor, texts: Sequence[Text]) -> Tensor:
        logits = logits.clone()
        for row, text in enumerate(texts):
            if len(text.written) < self.config.length:
                logits[row, list(text.stops)] = -math.inf  # eq. (1)
        return logits


def reference(logits: Sequence[float], text: Text, config: Config) -> list[float]:
    """One row, token by token."""
    early = len(text.written) < config.length
    return [-math.inf if early and token in text.stops else logit for token, logit in enumerate(logits)]
