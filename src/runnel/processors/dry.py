"""DRY ("don't repeat yourself"): a token that would lengthen a repeated passage loses exponentially many nats.

There is no paper: the rule is that of text-generation-webui's pull request 5677 (2024), found in llama.cpp too.

    n_v  = the longest suffix of the text that occurred earlier with v right after it   (1)
    l'_v = l_v - multiplier * base^(n_v - allowed_length)  if n_v >= allowed_length     (2)

A suffix never reaches over a breaker (a newline, a quotation mark), and breakers are never penalised, so that lists and
dialogues keep their form. n_v counts to 50 at most: there the penalty is a ban in all but name. multiplier 0 changes
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from runnel.ops.repeats import followers
from runnel.processors import Processor, Stage, Text

PAPERS: dict[str, str] = {}
LONGEST = 50


@dataclass(frozen=True)
class Config:
    """multiplier >= 0 in nats, base >= 1, allowed_length >= 1. breakers: token ids. last >= 1: how far back, or all."""

    multiplier: float = 0.8
    base: float = 1.75
    allowed_length: int = 2
    breakers: tuple[int, ...] = ()
    last: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.multiplier < math.inf:
            raise ValueError(f"multiplier of dry must be a finite number >= 0; got {self.multiplier}")
        if not 1 <= self.base < math.inf:
            raise ValueError(f"base of dry must be a finite number >= 1; got {self.base}")
        for name in ("allowed_length", "last"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} of dry must be at least 1; got {value}")


class Dry(Processor):
    config: Config
    stage = Stage.PENALTY

    def check(self, vocab_size: int, stops: frozenset[int], limit: int) -> None:
        for token in self.config.breakers:
            if not 0 <= token < vocab_size:
                raise ValueError(f"breakers of dry must be tokens in [0, {vocab_size}); got {token}")

    def process(self, logits: Tensor, texts: Sequence[Text]) -> Tensor:
        logits = logits.clone()
        for row, text in enumerate(texts):
            for token, length in self._matches(text.newest(self.config.last)).items():
                if length >= self.config.allowed_length:
                    logits[row, token] -= _penalty(length, self.config)  # eq. (2)
        return logits

    def _matches(self, text: list[int]) -> dict[int, int]:
        """Eq. (1): n_v of every v with n_v > 0."""
        breakers = set(self.config.breakers)
        suffix = text[::-1][:LONGEST]
        whole = next((i for i, token in enumerate(suffix) if token in breakers), len(suffix))
        return {token: length for token, length in followers(text, whole).items() if token not in breakers}


def _penalty(length: int, config: Config) -> float:
    return config.multiplier * config.base ** (length - config.allowed_length)


def reference(logits: Sequence[float], text: Sequence[int], config: Config) -> list[float]:
    """One row, every suffix at every place."""
    text, changed = list(text if config.last is None else text[-config.last :]), list(logits)
    for token in range(len(logits)):
        lengths = [
            length
            for length in range(1, min(LONGEST, len(text)) + 1)
            for end in range(length, len(text))
            if text[end - length : end] == text[len(text) - length :] and text[end] == token
            if not set(text[end - length : end]) & set(config.breakers)
        ]
        if lengths and max(lengths) >= config.allowed_length and token not in config.breakers:
            changed[token] -= _penalty(max(lengths), config)
    return changed
