"""Diverse beam search: several beams of one text, each kept away from what the earlier ones say.

Paper: "Diverse Beam Search: Decoding Diverse Solutions from Neural Sequence Models" (2016, 1610.02424).

    The beam of B is split into G groups of B' = B / G; at every step, group after group is one step of beam search over
    theta(y_t) = log p(y_t | y_<t) + lambda * sum_{h < g} delta(Y^h)[y]                       (1)   eq. 5, algorithm 1
    delta(Y^h)[y] = - sum_{y' in Y^h} likeness(y, y')                                         (2)

with the likeness Hamming, cumulative or n-gram (`ops/likeness.py`). Y^h is what group h holds after its own step: open
beginnings and its best finished texts. All groups grow in one call of the model. The first group is plain beam search.

| here | paper |
|---|---|
| width, groups, diversity | B, G, lambda |
| falloff, order | Gamma, n |

Deviations: what (1) takes off stays off a text, as in algorithm 1, and texts are ranked by it, length normalised as in
`beam`; of a text that several groups find the best score is kept. The paper's neural term needs word embeddings and is
left out; the paper finds Hamming best.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

from torch import Tensor

from runnel.ops.likeness import Cumulative, Hamming, Likeness, Ngram
from runnel.processors import Processor
from runnel.search import Beams, Branches, Grow, Grown, Hypothesis, Task, WideSearch

PAPERS = {"Diverse Beam Search: Decoding Diverse Solutions from Neural Sequence Models": "1610.02424"}
LOSSLESS = False
Texts = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Config:
    """width >= 1, a multiple of groups >= 1. diversity >= 0, in nats. term: how likeness is counted; falloff > 0: in
    differing tokens, of "cumulative"; order >= 1: tokens of an n-gram. length_penalty, processors: those of `beam`.
    """

    width: int = 4
    groups: int = 2
    diversity: float = 0.5
    term: Literal["hamming", "cumulative", "ngram"] = "hamming"
    falloff: float = 2.0
    order: int = 2
    length_penalty: float = 0.0
    processors: Sequence[str | Processor | Any] = ()

    def __post_init__(self) -> None:
        for name in ("width", "groups", "order"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} of diverse_beam must be at least 1; got {getattr(self, name)}")
        if self.width % self.groups:
            raise ValueError(f"width of diverse_beam must be a multiple of its {self.groups} groups; got {self.width}")
        if self.term not in ("hamming", "cumulative", "ngram"):
            raise ValueError(f"term of diverse_beam must be hamming, cumulative or ngram; got {self.term!r}")
        for name in ("diversity", "length_penalty"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} of diverse_beam must be a finite number >= 0; got {getattr(self, name)}")
        if not 0 < self.falloff < math.inf:
            raise ValueError(f"falloff of diverse_beam must be a finite number > 0; got {self.falloff}")


class DiverseBeam(WideSearch):
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.term = _term(config)

    def search(self, task: Task) -> Branches:
        config, each = self.config, self.config.width // self.config.groups
        groups = [Beams(task, each, config.length_penalty) for _ in range(config.groups)]
        grow, branches = Grow([0], [task.newest]), [[0] for _ in groups]  # at first all groups share one branch
        while any(branches):
            grown, earlier, parents = (yield grow), list[Sequence[int]](), list[list[int]]()
            for group, own in zip(groups, branches, strict=True):
                parents.append(self._step(group, own, earlier, grown) if own else [])
                earlier += [beginning.tokens for beginning in group.open]
                earlier += [text.tokens for text in group.best(each)]
            grow = Grow(
                [parent for own in parents for parent in own],
                [held.tokens[-1] for group in groups for held in group.open],
            )
            ends = accumulate(map(len, parents))
            branches = [list(range(end - len(own), end)) for own, end in zip(parents, ends, strict=True)]
        return _distinct([text for group in groups for text in group.best(each)])[: task.n]

    def _step(self, group: Beams, branches: Sequence[int], earlier: Texts, grown: Grown) -> list[int]:
        """Grow a group by eq. (1). Returns the branch that each of its open beginnings follows."""
        logits = grown.logits[list(branches)]
        laws = self.laws(logits, group.texts)
        alike = self.term.of_all([held.tokens for held in group.open], earlier, laws.shape[-1])
        laws = laws - self.config.diversity * alike
        return [branches[at] for at in group.step(laws, logits, [grown.places[branch] for branch in branches])]


def _term(config: Config) -> Likeness:
    choices = {"hamming": Hamming(), "cumulative": Cumulative(config.falloff), "ngram": Ngram(config.order)}
    return choices[config.term]


def _distinct(found: Sequence[Hypothesis]) -> list[Hypothesis]:
    """Every text once, best first."""
    best: dict[tuple[int, ...], Hypothesis] = {}
    for text in sorted(found, key=lambda each: -each.score):
        best.setdefault(tuple(text.tokens), text)
    return list(best.values())


def reference(
    law: Callable[[Sequence[int]], Tensor], task: Task, config: Config
) -> list[list[tuple[list[int], float]]]:
    """For each group its texts of task.limit tokens with their scores, where nothing else ends a text and there is no
    length penalty, from log-probabilities (V,) after any text: all continuations of all beginnings, step by step.
    """
    term = _term(config)
    groups: list[list[tuple[list[int], float]]] = [[([], 0.0)] for _ in range(config.groups)]
    for _ in range(task.limit):
        for index, group in enumerate(groups):
            others = [text for earlier in groups[:index] for text, _ in earlier]
            longer = [([*text, v], score + float(p)) for text, score in group for v, p in enumerate(law(text))]
            ranked = [(y, s - config.diversity * sum(term.of(y, o) for o in others)) for y, s in longer]
            groups[index] = sorted(ranked, key=lambda each: -each[1])[: config.width // config.groups]
    return groups
