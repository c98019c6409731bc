"""Superposed decoding: several drafts for the cost of one, by reading the mean of their newest tokens.

Paper: "Superposed Decoding: Multiple Generations from a Single Autoregressive Inference Pass" (2024, 2405.18400).

    p~ = what the model says after the mixtures x~_1 .. x~_{t-1}, one law for all k drafts
    f(v | y) = p~(v)^(1 - alpha) q(v | y)^alpha,  v among the likeliest under p~                      (1)
    q(v | y) = sum_n weight_n * count(the last n tokens of y, then v) / count(the last n tokens of y) (2)
    the k best y v by p(y v) = p(y) f(v | y) are the next drafts                                      (3)
    x~_t = sum_i gamma_i embedding(newest token of y_i),  gamma_i = p(y_i) / sum_j p(y_j)             (4)

(2) counts in a corpus; without one, alpha is 0 and (1) is p~. With q(v | y) = 0 a token is out; where that leaves a
draft none, its f is p~^(1 - alpha) e^-penalty. One draft is greedy decoding.

| here | paper |
|---|---|
| width, candidates | k, the number of tokens that are crossed with the drafts (k) |
| Ngrams.weights, Ngrams.alpha | lambda_n, alpha |

Deviations: the defaults of (2) and of `candidates` are those of the authors' code for three drafts. The model never
reads a draft as it stands, so that all are read once in the end: `logprobs` and the state are exact, `scores` are (3).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from runnel.ops.sampling import keep_top_k
from runnel.processors import Processor
from runnel.search import Beams, Branches, Grow, Task, WideSearch

PAPERS = {"Superposed Decoding: Multiple Generations from a Single Autoregressive Inference Pass": "2405.18400"}
LOSSLESS = False


@dataclass(frozen=True)
class Ngrams:
    """corpus: texts; weights: of what follows the last 1, 2, ... tokens; alpha in [0, 1); penalty in nats."""

    corpus: Sequence[Sequence[int]]
    weights: Sequence[float] = (0.01, 0.04, 0.15, 0.18, 0.12)
    alpha: float = 0.54
    penalty: float = 200.0

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < 1:
            raise ValueError(f"alpha of superposed must lie in [0, 1); got {self.alpha}")


@dataclass(frozen=True)
class Config:
    """width >= 1: the drafts. candidates >= width. processors: names, Configs or objects of `runnel/processors`."""

    width: int = 3
    candidates: int = 9
    ngrams: Ngrams | None = None
    processors: Sequence[str | Processor | Any] = ()

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width of superposed must be at least 1; got {self.width}")
        if self.candidates < self.width:
            raise ValueError(f"candidates of superposed must be at least its width {self.width}; got {self.candidates}")


class Superposed(WideSearch):
    config: Config
    rereads = True

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.counts = None if config.ngrams is None else Counts(config.ngrams)

    def search(self, task: Task) -> Branches:
        beams, grow = Beams(task, self.width), Grow([0], [task.newest])
        while beams.open:
            grown, texts = (yield grow), beams.texts
            logits = grown.logits.expand(len(texts), -1)
            laws = keep_top_k(self.laws(logits, texts), self.config.candidates)
            if self.counts is not None:
                laws = torch.stack(
                    [self.counts.interpolated(own, text.newest()) for own, text in zip(laws, texts, strict=True)]
                )
            beams.step(laws, logits, grown.places * len(texts))  # eq. (3)
            if beams.open:
                totals = torch.tensor([draft.total for draft in beams.open], dtype=torch.float64)
                newest = torch.tensor([draft.tokens[-1] for draft in beams.open])
                mixture = torch.zeros(1, logits.shape[-1], dtype=torch.float64)
                grow = Grow([0], mixture.index_add(1, newest, totals.softmax(0)[None]))  # eq. (4)
        return beams.best(task.n)

    def check(self, vocab_size: int, stops: frozenset[int], limit: int, n: int) -> None:
        super().check(vocab_size, stops, limit, n)
        for token in [] if self.config.ngrams is None else set().union(*self.config.ngrams.corpus):
            if not 0 <= token < vocab_size:
                raise ValueError(f"the corpus of superposed must hold tokens in [0, {vocab_size}); got {token}")


class Counts:
    """What followed on every context of a corpus."""

    def __init__(self, config: Ngrams) -> None:
        self.config = config
        self.after: defaultdict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for text in config.corpus:
            for at in range(len(text)):
                for n in range(1, min(len(config.weights), at) + 1):
                    self.after[tuple(text[at - n : at])][text[at]] += 1

    def interpolated(self, law: Float64[Tensor, "V"], text: Sequence[int]) -> Float64[Tensor, "V"]:
        """Eq. (1) from log-probabilities; log f, at most 0."""
        share = torch.zeros_like(law)
        for n, weight in enumerate(self.config.weights, 1):
            seen = self.after.get(tuple(text[-n:]), Counter()) if n <= len(text) else Counter()
            for token, count in seen.items():
                share[token] += weight * count / seen.total()  # eq. (2)
        mixed = (1 - self.config.alpha) * law + self.config.alpha * share.log().clamp(max=0)
        if bool((mixed == -math.inf).all()):
            return (1 - self.config.alpha) * law - self.config.penalty
        return mixed


def reference(
    law: Callable[[Float[Tensor, "T V"]], Tensor], prompt: Float[Tensor, "T V"], length: int, width: int
) -> list[tuple[list[int], float]]:
    """The drafts of `length` tokens with (3), best first, without n-grams, from log-probabilities (V,) after any
    mixtures: everything is read anew at every step, and every draft is crossed with every token.
    """
    drafts: list[tuple[list[int], float]] = [([], 0.0)]
    mixtures = prompt
    for _ in range(length):
        after = law(mixtures).tolist()
        longer = [([*text, v], total + p) for text, total in drafts for v, p in enumerate(after)]
        drafts = sorted(longer, key=lambda each: -each[1])[:width]
        whole = sum(math.exp(total) for _, total in drafts)
        mixture = torch.zeros_like(prompt[:1])
        for text, total in drafts:
            mixture[0, text[-1]] += math.exp(total) / whole
        mixtures = torch.cat([mixtures, mixture])
    return drafts
