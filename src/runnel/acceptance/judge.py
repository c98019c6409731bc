"""Judge: a draft that plain decoding would not have written is kept when a trained judge finds it right. Lossy.

Paper: "Judge Decoding: Faster Speculative Sampling Requires Going Beyond Model Alignment" (2025, 2501.19309), section
4: a linear head on the target's hidden vector after the drafted token, trained on right and wrong continuations.

    j(x) = sigmoid(w . h(x) + b),  h(x) the hidden vector after x                      (1)
    accept x when plain decoding writes it too, or when j(x) > threshold               (2)
    w, b minimise the mean of -log j over right tokens and -log (1 - j) over wrong ones, each kind weighing
        the same, + decay |w|^2                                                        (3)

The plain check is that of `match`. With threshold 1 nothing else is accepted, and the text is that of `match`.

Bound: there is none before the judge has been seen to work. `drifts` holds 1 for every token that only the judge
accepted: the text is plain decoding's up to the first of them, so that `bound()` times its length bounds its distance
from the plain law. How often the judge errs is measured on labelled continuations that it was not trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from runnel.acceptance import Lossy, picked
from runnel.model import Model
from runnel.prefill import prefill_hidden
from runnel.rows import Walk

PAPERS = {"Judge Decoding: Faster Speculative Sampling Requires Going Beyond Model Alignment": "2501.19309"}
LOSSLESS = False
STEPS = 30


@dataclass(frozen=True)
class Config:
    """weight (D,) and bias: w and b, as `fit` finds them. threshold in [0, 1]."""

    weight: Float[Tensor, "D"]
    bias: float
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must lie in [0, 1]; got {self.threshold}")


class Judge(Lossy):
    config: Config
    shares_noise = True

    def step(self, walk: Walk) -> None:
        plain = picked(walk)
        judged = None if walk.forest.child(walk.node, plain) is not None else self._judged(walk)
        self.drifts.append(float(judged is not None))
        if judged is None:
            walk.step(plain)
        else:
            walk.go(judged)

    def _judged(self, walk: Walk) -> int | None:
        """The first child that the judge finds right."""
        weight, bias = self.config.weight, self.config.bias
        if not walk.children:
            return None
        hidden = walk.said.hidden[list(walk.children)].to(weight.device, weight.dtype)
        right = torch.sigmoid(hidden @ weight + bias) > self.config.threshold
        return next((child for child, yes in zip(walk.children, right.tolist(), strict=True) if yes), None)


class Continuation(NamedTuple):
    """What a judge learns from. right: for each of the tokens whether it may stand after those before it."""

    prompt: Sequence[int]
    tokens: Sequence[int]
    right: Sequence[bool]


@torch.no_grad()
def examples(model: Model, continuations: Sequence[Continuation]) -> tuple[Float[Tensor, "N D"], Bool[Tensor, "N"]]:
    """The model's hidden vectors after the tokens of labelled continuations, and the labels."""
    texts = [[*c.prompt, *c.tokens] for c in continuations]
    hidden, _ = prefill_hidden(model, texts, model.init_state(batch_size=len(texts)))
    after = [own[len(c.prompt) :] for own, c in zip(hidden, continuations, strict=True)]
    return torch.cat(after), torch.tensor([label for c in continuations for label in c.right])


def fit(hidden: Float[Tensor, "N D"], right: Bool[Tensor, "N"], threshold: float = 0.5, decay: float = 1e-3) -> Config:
    """Eq. (3), by Newton's method: the judge of these examples. At least one of each kind."""
    if bool(right.all()) or not bool(right.any()):
        raise ValueError("a judge needs right and wrong tokens to learn from; got one kind only")
    x = torch.cat([hidden.double(), torch.ones(len(hidden), 1, dtype=torch.double, device=hidden.device)], dim=1)
    y = right.double()
    share = torch.where(right, 0.5 / y.sum(), 0.5 / (1 - y).sum())
    ridge = 2 * decay * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    ridge[-1, -1] = 1e-9  # the bias is free
    w = x.new_zeros(x.shape[1])
    for _ in range(STEPS):
        judged = torch.sigmoid(x @ w)
        gradient = x.T @ (share * (judged - y)) + ridge @ w
        curvature = (x * (share * judged * (1 - judged))[:, None]).T @ x + ridge
        w = w - torch.linalg.solve(curvature, gradient)
    return Config(w[:-1], float(w[-1]), threshold)


def reference(hidden: Sequence[float], config: Config) -> float:
    """Eq. (1) for one vector, number by number."""
    return 1 / (1 + math.exp(-config.bias - sum(w * h for w, h in zip(config.weight.tolist(), hidden, strict=True))))
