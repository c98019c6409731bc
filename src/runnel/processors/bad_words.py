"""Bad words: token sequences that must not be written.

    l'_v = -inf  if the text ends with s_1..s_{n-1} and v = s_n, for a bad sequence s      (1)

A sequence may begin in the prompt. Where a word can be spelled by several token sequences, each has to be given.
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
    """sequences: token sequences, of at least one token each."""

    sequences: Sequence[Sequence[int]]

    def __post_init__(self) -> None:
        if any(len(sequence) == 0 for sequence in self.sequences):
            raise ValueError("bad_words must have at least one token each; got an empty one")


class BadWords(Processor):
    config: Config
    stage = Stage.BAN

    def check(self, vocab_size: int, stops: frozenset[int], limit: int) -> None:
        for sequence in self.config.sequences:
            for token in sequence:
                if not 0 <= token < vocab_size:
                    raise ValueError(f"bad_words must be of tokens in [0, {vocab_size}); got {token}")

    def process(self, logits: Tensor, texts: Sequence[Text]) -> Tensor:
        logits = logits.clone()
        longest = max(map(len, self.config.sequences), default=1) - 1
        for row, text in enumerate(texts):
            end = text.newest(longest)
            for *before, last in self.config.sequences:
                if end[len(end) - len(before) :] == before and len(end) >= len(before):
                    logits[row, last] = -math.inf  # eq. (1)
        return logits


def reference(logits: Sequence[float], text: Sequence[int], config: Config) -> list[float]:
    """One row: a token is banned when the text with it would end in a bad sequence."""
    return [
        -math.inf if any([*text, token][-len(bad) :] == list(bad) for bad in config.sequences) else logit
        for token, logit in enumerate(logits)
    ]
