"""Measures of what was written and of what a model thinks in: repetition, distinct n-grams, isotropy.

    rep-n(y)      = 1 - |distinct n-grams of y| / |n-grams of y|                                         (1)
    distinct-n(Y) = |distinct n-grams of all texts of Y| / |n-grams of all texts of Y|                   (2)
    isotropy(h)   = 1 - the mean of cos(h_i, h_j) over all i != j                                        (3)

(1) is of "Neural Text Generation with Unlikelihood Training" (2019, 1908.04319), (2) of "A Diversity-Promoting
Objective Function for Neural Conversation Models" (2015, 1510.03055), (3), for one text, of "Contrastive Search Is What
You Need For Neural Text Generation" (2022, 2210.14140). Texts that are shorter than n have no n-grams, and what has
none does not repeat itself: rep-n 0, distinct-n 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize


def ngrams(tokens: Sequence[int], n: int) -> list[tuple[int, ...]]:
    """All n-grams of a text, in order."""
    if n < 1:
        raise ValueError(f"n-grams need n >= 1; got {n}")
    return [tuple(tokens[first : first + n]) for first in range(len(tokens) - n + 1)]


def repetition(tokens: Sequence[int], n: int = 4) -> float:
    """Eq. (1), in [0, 1)."""
    return 1.0 - distinct([tokens], n)


def distinct(texts: Sequence[Sequence[int]], n: int = 2) -> float:
    """Eq. (2), in (0, 1]."""
    found = [ngram for text in texts for ngram in ngrams(text, n)]
    return len(set(found)) / len(found) if found else 1.0


def isotropy(hidden: Float[Tensor, "T D"]) -> float:
    """Eq. (3) for the vectors of a text of at least two tokens, in [0, T / (T - 1)]: 0 when all point the same way."""
    count = hidden.shape[0]
    if count < 2:
        raise ValueError(f"isotropy compares vectors and needs at least two; got {count}")
    unit = normalize(hidden.double(), dim=-1)
    total = unit.sum(0).square().sum() - unit.square().sum()  # over pairs i != j, without their matrix
    return 1.0 - float(total) / (count * (count - 1))


def reference(hidden: Float[Tensor, "T D"]) -> float:
    """Eq. (3), pair by pair."""
    pairs = [(a, b) for i, a in enumerate(hidden) for j, b in enumerate(hidden) if i != j]
    return 1.0 - sum(float(a @ b / (a.norm() * b.norm())) for a, b in pairs) / len(pairs)
