"""Beam search: the likeliest texts, as far as keeping the `width` likeliest beginnings finds them.

Papers: the length penalty is that of "Google's Neural Machine Translation System" (2016, 1609.08144), section 7.

    B_0 = {the prompt};  B_t = the `width` likeliest of {y v : y in B_{t-1}, v a token}    (1)
    a text that ends leaves the beam for the set of finished texts, and is ranked by
    score(y) = log p(y) / ((5 + |y|) / 6)^length_penalty                                  (2)

The search ends when `width` texts are finished and no beginning can still score better, or at the limit; texts that
reach the limit count as finished. length_penalty 0 ranks by probability: then, with a beam that holds every beginning,
the best text found is the likeliest one. Ties go to the earlier beam and the lower token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from runnel.processors import Processor
from runnel.search import Beams, Branches, Grow, Task, WideSearch

PAPERS = {
    "Google's Neural Machine Translation System: Bridging the Gap between Human and Machine Translation": "1609.08144"
}
LOSSLESS = False


@dataclass(frozen=True)
class Config:
    """width >= 1; length_penalty >= 0. processors: names, Configs or objects of `runnel/processors`."""

    width: int = 4
    length_penalty: float = 0.0
    processors: Sequence[str | Processor | Any] = ()

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width of beam must be at least 1; got {self.width}")
        if not 0 <= self.length_penalty < math.inf:
            raise ValueError(f"length_penalty of beam must be a finite number >= 0; got {self.length_penalty}")


class Beam(WideSearch):
    config: Config

    def search(self, task: Task) -> Branches:
        beams, grow = Beams(task, self.config.width, self.config.length_penalty), Grow([0], [task.newest])
        while beams.open:
            grown = yield grow
            laws = self.laws(grown.logits, beams.texts)
            parents = beams.step(laws, grown.logits, grown.places)  # eq. (1)
            grow = Grow(parents, [beginning.tokens[-1] for beginning in beams.open])
        return beams.best(task.n)  # by eq. (2)


def reference(law: Callable[[Sequence[int]], Tensor], vocab_size: int, task: Task) -> list[tuple[list[int], float]]:
    """Every text of a small model with its log-probability, likeliest first, from log-probabilities (V,) after any
    text: what a beam that covers everything must find.
    """
    open_texts: list[tuple[list[int], float]] = [([], 0.0)]
    found: list[tuple[list[int], float]] = []
    while open_texts:
        text, total = open_texts.pop()
        after = law(text)
        for token in range(vocab_size):
            longer = ([*text, token], total + float(after[token]))
            (open_texts if task.ended(longer[0]) is None else found).append(longer)
    return sorted(found, key=lambda each: -each[1])
