"""Contrastive search: the likely token whose hidden vector is least like those of the text so far.

Papers: "Contrastive Search Is What You Need For Neural Text Generation" (2022, 2210.14140), section 2.3; it proposes to
use the search without training, on models that are isotropic (`ops/measures.py` measures that).

    x_t = argmax over v in the k likeliest of
          (1 - alpha) p(v | x_<t)  -  alpha max_{j < t} cos(h_v, h_{x_j})                     (1)

h_v is the model's hidden vector after x_<t and then v, so that each step reads k branches in one call and goes on with
one; h_{x_j} are those of the text, the prompt included (as far as this call read it). alpha 0 and k = 1 are greedy
decoding.

| here | paper |
|---|---|
| candidates, alpha | k, alpha |

The hidden vectors are those that the head sees, after the last norm. One text is found; its score is the sum of (1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn.functional import normalize

from runnel.processors import Processor
from runnel.search import Beginning, Branches, Grow, ProcessedSearch, Task, best_first

PAPERS = {"Contrastive Search Is What You Need For Neural Text Generation": "2210.14140"}
LOSSLESS = False


@dataclass(frozen=True)
class Config:
    """candidates >= 1. alpha in [0, 1]. processors: names, Configs or objects of `runnel/processors`."""

    candidates: int = 5
    alpha: float = 0.6
    processors: Sequence[str | Processor | Any] = ()

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise ValueError(f"candidates of contrastive must be at least 1; got {self.candidates}")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha of contrastive must lie in [0, 1]; got {self.alpha}")


class Contrastive(ProcessedSearch):
    config: Config
    reads_hidden = True

    def search(self, task: Task) -> Branches:
        assert task.hidden is not None
        text, total, seen = Beginning(), 0.0, _directions(task.hidden)
        grown, chosen = (yield Grow([0], [task.newest])), 0
        while True:
            seen = torch.cat([seen, _directions(grown.hidden[chosen][None])])
            law = self.laws(grown.logits[chosen][None], [task.text(text.tokens)])
            tokens = [token for _, token in islice(best_first(law), self.config.candidates)]
            plain, place = grown.logits[chosen].log_softmax(-1), grown.places[chosen]
            grown = yield Grow([chosen] * len(tokens), tokens)
            alike = (_directions(grown.hidden) @ seen.T).amax(-1)
            scores = (1 - self.config.alpha) * law[0, tokens].exp() - self.config.alpha * alike  # eq. (1)
            chosen = int(scores.argmax())
            text = text.followed(tokens[chosen], float(plain[tokens[chosen]]), float(law[0, tokens[chosen]]))
            total += float(scores[chosen])
            ended = task.ended(text.tokens)
            if ended is not None:
                return [text.hypothesis(total, place, ended)]

    def check(self, vocab_size: int, stops: frozenset[int], limit: int, n: int) -> None:
        super().check(vocab_size, stops, limit, n)
        if self.config.candidates > vocab_size:
            raise ValueError(
                f"candidates of contrastive must be at most the {vocab_size} tokens that there are; "
                f"got {self.config.candidates}"
            )


def _directions(hidden: Tensor) -> Float64[Tensor, "T D"]:
    return normalize(hidden.double().cpu(), dim=-1)


def reference(
    read: Callable[[Sequence[int]], tuple[Tensor, Tensor]], prompt: Sequence[int], length: int, config: Config
) -> list[int]:
    """A text of `length` tokens from the logits (T, V) and hidden vectors (T, D) of whole texts, all of it computed
    anew for every candidate.
    """
    text = list(prompt)
    for _ in range(length):
        logits, hidden = read(text)
        law = logits[-1].softmax(-1).tolist()
        best, best_score = -1, -float("inf")
        for token in sorted(range(len(law)), key=lambda v: (-law[v], v))[: config.candidates]:
            own = read([*text, token])[1][-1]
            alike = max(float(own @ h / (own.norm() * h.norm())) for h in hidden)
            score = (1 - config.alpha) * law[token] - config.alpha * alike
            if score > best_score:
                best, best_score = token, score
        text.append(best)
    return text[len(prompt) :]
