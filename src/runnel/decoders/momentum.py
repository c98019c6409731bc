"""Momentum decoding: greedy, but going round in circles costs, the more the longer the way that is repeated.

Paper: "Momentum Decoding: Open-ended Text Generation As Graph Exploration" (2022, 2212.02175).

    The text is a walk on the graph of its tokens, the prompt's included. v among the top_k likeliest has circular depth
    d(v) = 0 when v is a new node, else the length of the longest end of the walk to v that was walked before   (1)
    y = argmax_{v in top_k} p(v) - alpha f(d(v))                                                               (2)

with the resistance function f(0) = 0, f(d) = resistance[d - 1], a greater depth counting as the last. When the greedy
token is new it is taken, since f(0) = 0; (2) then says what the paper says in two cases. alpha 0 is greedy decoding.
resistance (0, 0, 0, inf) lets no 4-gram stand twice, as long as there is another among the top_k; where all of them
resist without limit the greedy token is taken. The default f is that of the authors' code for GPT2-XL, as are top_k and
alpha. The law is a function of the text, so that every drafter leaves it as it is; there is one call of the model per
token at most.

| here | paper |
|---|---|
| top_k, alpha, resistance | k, alpha, f |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runnel.decoders import Decoder
from runnel.ops.repeats import followers
from runnel.ops.sampling import certain
from runnel.processors import Text

PAPERS = {"Momentum Decoding: Open-ended Text Generation As Graph Exploration": "2212.02175"}
LOSSLESS = True


@dataclass(frozen=True)
class Config:
    """top_k >= 1. alpha >= 0. resistance: f of the depths 1, 2, ..., each >= 0, the last for all beyond."""

    top_k: int = 5
    alpha: float = 0.2
    resistance: Sequence[float] = (1.0, 2.0, 3.0, 4.0, 5.0)

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ValueError(f"top_k of momentum must be at least 1; got {self.top_k}")
        if not 0 <= self.alpha < math.inf:
            raise ValueError(f"alpha of momentum must be a finite number >= 0; got {self.alpha}")
        if not self.resistance or not all(value >= 0 for value in self.resistance):
            raise ValueError(f"resistance of momentum must be at least one number >= 0; got {self.resistance}")


class Momentum(Decoder):
    config: Config

    def law(self, logits: Tensor, texts: Sequence[Text] = ()) -> Tensor:
        return certain(self._resisted(logits, texts))

    def scores(
        self, logits: Tensor, seeds: Sequence[int], positions: Sequence[int], texts: Sequence[Text] = ()
    ) -> Tensor:
        return self._resisted(logits, texts)

    def _resisted(self, logits: Tensor, texts: Sequence[Text]) -> Tensor:
        """Eq. (2); -inf for what is not among the likeliest."""
        if self.config.alpha == 0:
            return logits
        scores = torch.full_like(logits, -math.inf)
        top = logits.softmax(-1).sort(descending=True, stable=True)
        for row, text in enumerate(texts):
            tokens = text.newest()
            walked, known = followers(tokens, len(self.config.resistance) - 1), set(tokens)
            for token, p in zip(top.indices[row].tolist()[: self.config.top_k], top.values[row].tolist(), strict=False):
                depth = 1 + walked.get(token, 0) if token in known else 0  # eq. (1)
                scores[row, token] = p - resisting(depth, self.config)
            if bool((scores[row] == -math.inf).all()):
                scores[row] = logits[row]
        return scores


def resisting(depth: int, config: Config) -> float:
    """alpha f(depth)."""
    if depth == 0 or config.alpha == 0:
        return 0.0
    return config.alpha * config.resistance[min(depth, len(config.resistance)) - 1]


def reference(law: Sequence[float], text: Sequence[int], config: Config) -> int:
    """The token of one row, from probabilities: the graph walked edge by edge, the longest way first."""
    text, candidates = list(text), sorted(range(len(law)), key=lambda v: (-law[v], v))[: config.top_k]
    if candidates[0] not in text:
        return candidates[0]
    scores = []
    for v in candidates:
        way, depth = [*text, v], 0
        for length in range(len(text), 0, -1):
            if any(text[end - length : end] == way[-length:] for end in range(length, len(text) + 1)):
                depth = length
                break
        scores.append(law[v] - resisting(depth, config))
    return candidates[scores.index(max(scores))]
