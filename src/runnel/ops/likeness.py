"""How alike the next token makes a text to others: what diverse search takes off.

For the text y = (y_1 .. y_t) and another text y' ("Diverse Beam Search", 2016, 1610.02424, section 4):

    Hamming     [y'_t = y_t]                                        (1)
    cumulative  exp(-|{s <= t : y'_s != y_s}| / Gamma)              (2)
    n-gram      how often the newest n-gram of y occurs in y'       (3)

A place that y' lacks differs; a text without n-grams has no newest one. `of` is the definition for one pair, `of_all`
gives the sums over all others at once, for every next token.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from runnel.ops.measures import ngrams
from runnel.ops.sampling import counts_of

Texts = Sequence[Sequence[int]]


class Likeness(ABC):
    @abstractmethod
    def of(self, text: Sequence[int], other: Sequence[int]) -> float:
        """How alike a text of at least one token is to another, in the sense of its newest token."""

    @abstractmethod
    def of_all(self, beginnings: Texts, others: Texts, vocab_size: int) -> Float64[Tensor, "N V"]:
        """The sums over all others for each of N beginnings of one length, followed by each token."""


class Hamming(Likeness):
    """Eq. (1)."""

    def of(self, text: Sequence[int], other: Sequence[int]) -> float:
        return float(len(other) >= len(text) and other[len(text) - 1] == text[-1])

    def of_all(self, beginnings: Texts, others: Texts, vocab_size: int) -> Float64[Tensor, "N V"]:
        place = len(beginnings[0])
        counts = counts_of([other[place] for other in others if len(other) > place], vocab_size)
        return counts.expand(len(beginnings), -1)


class Cumulative(Likeness):
    """Eq. (2). falloff: Gamma."""

    def __init__(self, falloff: float) -> None:
        self.falloff = falloff

    def of(self, text: Sequence[int], other: Sequence[int]) -> float:
        return math.exp(-sum(s >= len(other) or other[s] != token for s, token in enumerate(text)) / self.falloff)

    def of_all(self, beginnings: Texts, others: Texts, vocab_size: int) -> Float64[Tensor, "N V"]:
        found = torch.zeros(len(beginnings), vocab_size, dtype=torch.float64)
        for row, beginning in enumerate(beginnings):
            for other in others:
                so_far = self.of(beginning, other)
                found[row] += so_far * math.exp(-1 / self.falloff)  # every token but the one that agrees
                if len(other) > len(beginning):
                    found[row, other[len(beginning)]] -= so_far * math.expm1(-1 / self.falloff)
        return found


class Ngram(Likeness):
    """Eq. (3). order: n."""

    def __init__(self, order: int) -> None:
        self.order = order

    def of(self, text: Sequence[int], other: Sequence[int]) -> float:
        newest = ngrams(text, self.order)[-1:]
        return float(sum(ngram in newest for ngram in ngrams(other, self.order)))

    def of_all(self, beginnings: Texts, others: Texts, vocab_size: int) -> Float64[Tensor, "N V"]:
        counts = Counter(ngram for other in others for ngram in ngrams(other, self.order))
        found = torch.zeros(len(beginnings), vocab_size, dtype=torch.float64)
        for row, beginning in enumerate(beginnings):
            context = tuple(beginning[max(0, len(beginning) + 1 - self.order) :])
            for ngram, count in counts.items():
                if ngram[:-1] == context:
                    found[row, ngram[-1]] = count
        return found
