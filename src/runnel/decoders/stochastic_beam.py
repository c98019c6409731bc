"""Stochastic beam search: texts drawn from the model without replacement, in one beam search.

Paper: "Stochastic Beams and Where to Find Them: The Gumbel-Top-k Trick for Sampling Sequences Without Replacement"
(2019, 1903.06059).

    The k texts with the largest perturbed log-probabilities G_y ~ Gumbel(phi_y), phi_y = log p(y), are k draws without
    replacement, in order                                                                     (1)   eq. 5
    A beginning has the largest G of its texts; those of its children v given it are, with G_v ~ Gumbel(phi_v) and
    Z = max_v G_v,   G'_v = -log(exp(-G) - exp(-Z) + exp(-G_v))                               (2)   eq. 24
    so that keeping the k beginnings and texts of largest G' finds the k texts of (1).

The root's G is drawn too (the paper may set it to 0), so that the scores are independent Gumbel(log p(y)) of all texts,
as estimators want them. Noise is keyed by (row seed, position, beginning): the value of a text does not depend on the
width, and a narrower search finds the first texts of a wider one. The first text is a draw from the model's law. (2) is
computed as in the paper's appendix B.3.

| here | paper |
|---|---|
| width, total, score, reach | k, phi, G', G |
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from runnel.ops.sampling import gumbel
from runnel.processors import Processor
from runnel.search import Beginning, Branches, Grow, Hypothesis, Task, WideSearch, best_first

PAPERS = {
    "Stochastic Beams and Where to Find Them: The Gumbel-Top-k Trick for Sampling Sequences Without Replacement": (
        "1903.06059"
    )
}
LOSSLESS = False


@dataclass(frozen=True)
class Config:
    """width >= 1: how many texts are drawn. temperature > 0. processors: names, Configs or objects of
    `runnel/processors`.
    """

    width: int = 4
    temperature: float = 1.0
    processors: Sequence[str | Processor | Any] = ()

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width of stochastic_beam must be at least 1; got {self.width}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature of stochastic_beam must be a finite number > 0; got {self.temperature}")


class StochasticBeam(WideSearch):
    config: Config

    def search(self, task: Task) -> Branches:
        width, beams, reach, finished = self.config.width, [Beginning()], root_noise(task), list[Hypothesis]()
        grow = Grow([0], [task.newest])
        while beams:
            grown = yield grow
            plain = grown.logits.log_softmax(-1)
            laws = self.laws(grown.logits, [task.text(beam.tokens) for beam in beams])
            laws = (laws / self.config.temperature).log_softmax(-1)
            totals = torch.tensor([beam.total for beam in beams], dtype=torch.float64)[:, None] + laws
            noise = torch.stack([children_noise(task, beam.tokens, laws.shape[-1]) for beam in beams])
            scores = conditioned(totals + noise, reach)
            best = list(islice(best_first(scores), width))
            bar = sorted([*(text.score for text in finished), *(float(scores[at]) for at in best)])[-width:][0]
            finished = [text for text in finished if text.score >= bar]
            after, parents = list[Beginning](), list[int]()
            for at in (at for at in best if scores[at] >= bar):
                parent, token = at
                text = beams[parent].followed(token, float(plain[at]), float(totals[at]))
                ended = task.ended(text.tokens)
                if ended is None:
                    after.append(text)
                    parents.append(parent)
                else:
                    finished.append(text.hypothesis(float(scores[at]), grown.places[parent], ended))
            reach = scores[parents, [text.tokens[-1] for text in after]]
            beams, grow = after, Grow(parents, [text.tokens[-1] for text in after])
        return sorted(finished, key=lambda text: -text.score)[: task.n]


def conditioned(perturbed: Float64[Tensor, "N V"], reach: Float64[Tensor, "N"]) -> Float64[Tensor, "N V"]:
    """Eq. (2): the children's own values G_v, given that the largest of each row is what its beginning reaches."""
    largest = perturbed.amax(-1, keepdim=True)
    below = reach[:, None] - perturbed + _log1mexp(perturbed - largest)
    return reach[:, None] - below.clamp(min=0) - torch.log1p(torch.exp(-below.abs()))


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x <= 0."""
    return torch.where(x > -math.log(2), (-torch.expm1(x)).log(), torch.log1p(-x.exp()))


def root_noise(task: Task) -> Float64[Tensor, "1"]:
    return gumbel([task.seed], [task.position], 1)[0]


def children_noise(task: Task, tokens: Sequence[int], vocab_size: int) -> Float64[Tensor, "V"]:
    """The noise of what may follow a beginning: a stream of its own."""
    digest = hashlib.blake2b(np.array(tokens, dtype="<i8").tobytes(), digest_size=8, person=b"beginning").digest()
    stream = int.from_bytes(digest, "little")
    return gumbel([task.seed], [task.position + len(tokens)], vocab_size, stream)[0]


def reference(
    law: Callable[[Sequence[int]], Tensor], vocab_size: int, task: Task
) -> list[tuple[list[int], float, float]]:
    """Every text of a small model with its log-probability and its score, best first, from log-probabilities (V,) after
    any text: eq. (2) as it is written, down the whole tree.
    """
    open_texts: list[tuple[list[int], float, float]] = [([], 0.0, float(root_noise(task)))]
    found: list[tuple[list[int], float, float]] = []
    while open_texts:
        text, total, reach = open_texts.pop()
        totals = [total + float(p) for p in law(text)]
        noise = children_noise(task, text, vocab_size).tolist()
        values = [phi + g for phi, g in zip(totals, noise, strict=True)]
        for token, value in enumerate(values):
            score = -math.log(math.exp(-reach) - math.exp(-max(values)) + math.exp(-value))
            longer = ([*text, token], totals[token], score)
            (open_texts if task.ended(longer[0]) is None else found).append(longer)
    return sorted(found, key=lambda each: -each[2])
