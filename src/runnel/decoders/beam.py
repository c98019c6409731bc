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

import torch
from torch import Tensor

from runnel.processors import Processor, resolve
from runnel.search import (
    Beginning,
    Branches,
    Grow,
    Hypothesis,
    Search,
    Task,
    best_first,
    check_width,
    processed,
    without_memory,
)

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


class Beam(Search):
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.processors = without_memory(resolve(config.processors))

    def search(self, task: Task) -> Branches:
        beams, finished = [Beginning()], list[Hypothesis]()
        grow = Grow([0], [task.newest])
        while beams and not self._settled(task, beams, finished):
            grown = yield grow
            laws = processed(grown.logits, [task.text(beam.tokens) for beam in beams], self.processors)
            totals = torch.tensor([beam.total for beam in beams])[:, None] + laws
            plain, after, grow = grown.logits.log_softmax(-1), list[Beginning](), Grow([], [])
            for parent, token in best_first(totals):  # eq. (1)
                text = beams[parent].followed(token, float(plain[parent, token]), float(totals[parent, token]))
                ended = task.ended(text.tokens)
                if ended is not None:
                    finished.append(text.hypothesis(self._score(text), grown.places[parent], ended))
                    continue
                after.append(text)
                grow.parents.append(parent)
                grow.tokens.append(token)
                if len(after) == self.config.width:
                    break
            beams = after
        return sorted(finished, key=lambda found: -found.score)[: task.n]

    def _score(self, text: Beginning) -> float:
        return text.total / self._length_norm(len(text.tokens))  # eq. (2)

    def _length_norm(self, length: int) -> float:
        return ((5 + length) / 6) ** self.config.length_penalty

    def _settled(self, task: Task, beams: Sequence[Beginning], finished: Sequence[Hypothesis]) -> bool:
        """Whether no beginning can come before the worst of the texts that are kept. A total only falls."""
        if len(finished) < self.config.width:
            return False
        kept = sorted((found.score for found in finished), reverse=True)[: self.config.width]
        return max(beam.total for beam in beams) / self._length_norm(task.limit) <= kept[-1]

    def check(self, vocab_size: int, stops: frozenset[int], limit: int, n: int) -> None:
        check_width("beam", self.config.width, vocab_size, limit, n)
        for processor in self.processors:
            processor.check(vocab_size, stops, limit)


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
