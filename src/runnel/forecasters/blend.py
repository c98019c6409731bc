"""Blend: a convex combination of other forecasters, with weights from forecasts that were made out of sample.

Papers: "Stacked Generalization" (Wolpert, 1992) and "Stacked Regressions" (Breiman, 1996): weights that are not
negative, and that sum to one, learned from held-out forecasts.

    w = argmin over w >= 0, sum w = 1 of sum_f |Y_f - sum_m w_m P_fm|^2 / e_f          (1)
    e_f = min_m |Y_f - P_fm|^2                                                         (2)

| code | meaning |
|---|---|
| folds f | the validation part, and the last third of the training part with members fitted on what is before it |
| P_fm | forecasts of member m on fold f |

One stretch of validation is few independent windows where the horizon is long, and weights that are best on it may
suit its season only: two stretches count alike. (1) is solved by accelerated projected gradients.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runnel.windows import FitConfig, FitReport, Window, WindowModel, WindowSet, WindowShape, build
from runnel.windows.model import Progress

PAPERS: dict[str, str] = {}

BATCH = 128
STEPS = 5000


@dataclass(frozen=True)
class Member:
    """config: of a page of `forecasters/`. history: rows that it looks back. fit: how it is trained."""

    name: str
    config: Any
    history: int
    fit: FitConfig = field(default_factory=FitConfig)


@dataclass(frozen=True)
class Config:
    """members: at least one. every: the windows that weights are learned from are thinned out to one in so many."""

    members: tuple[Member, ...]
    every: int = 4

    def __post_init__(self) -> None:
        if not self.members or self.every < 1:
            raise ValueError(f"blend needs members and every >= 1; got {len(self.members)} and {self.every}")


class Blend(WindowModel):
    points_only = True
    weights: Tensor

    def __init__(self, shape: WindowShape, config: Config) -> None:
        super().__init__(shape)
        self.config = config
        longest = max(member.history for member in config.members)
        if shape.history < longest:
            raise ValueError(f"history of a blend must be that of its longest member, {longest}; got {shape.history}")
        shapes = [replace(shape, history=member.history) for member in config.members]
        self.members = nn.ModuleList(build(m.config, s) for m, s in zip(config.members, shapes, strict=True))
        self.register_buffer("weights", torch.full((len(shapes),), 1 / len(shapes)))
        self.scores: list[tuple[float, float]] = []
        """Of every member: mean squared error on the inner fold and on validation, once fitted."""

    def forward(self, window: Window) -> Float[Tensor, "B H C 1"]:
        used = [(w, m) for w, m in zip(self.weights, self._models(), strict=True) if w > 0]
        return torch.stack([w * m.point(window.recent(m.shape.history)) for w, m in used]).sum(0)[..., None]

    def fit(
        self,
        train: WindowSet,
        valid: WindowSet,
        config: FitConfig | None = None,
        progress: Progress = lambda done, text: None,
    ) -> FitReport:
        """Fit every member on the first two thirds of the training part and then on all of it; solve (1)."""
        started = time.perf_counter()
        early, late = train.split(2 / 3)
        folds = []
        for number, (learn, judge) in enumerate(((early, late), (train, valid))):
            forecasts = []
            for at, (member, model) in enumerate(zip(self.config.members, self._models(), strict=True)):
                progress((number + at / len(self.config.members)) / 2, f"{member.name}, fold {number + 1} of 2")
                learner = build(member.config, model.shape, seed=member.fit.seed)
                learner.fit(learn.seen_by(model.shape), judge.seen_by(model.shape), member.fit)
                forecasts.append(_forecasts(learner, judge.every(self.config.every)))
                model.load_state_dict(learner.state_dict())
                model.eval()
            folds.append(_products(torch.stack(forecasts), _targets(judge.every(self.config.every))))
        self.scores = list(zip(*[gram.diagonal().tolist() for gram in folds], strict=True))
        self.weights.copy_(simplex(torch.stack([gram / gram.diagonal().min() for gram in folds]).sum(0)))
        blended = float(self.weights.double() @ folds[1] @ self.weights.double())
        return FitReport(blended, 0, time.perf_counter() - started)

    def _models(self) -> list[WindowModel]:
        return [member for member in self.members if isinstance(member, WindowModel)]


def _forecasts(model: WindowModel, windows: WindowSet) -> Float[Tensor, "N"]:
    seen = windows.seen_by(model.shape)
    return torch.cat([model.point(window).flatten() for window in seen.batches(BATCH)])


def _targets(windows: WindowSet) -> Float[Tensor, "N"]:
    return torch.cat([w.target.flatten() for w in windows.batches(BATCH) if w.target is not None])


def _products(forecasts: Float[Tensor, "M N"], target: Float[Tensor, "N"]) -> Float[Tensor, "M M"]:
    """Mean products of errors: w^T E w is the error of the blend, as the weights sum to one."""
    known = ~target.isnan()
    errors = (forecasts - target)[:, known].double()
    return errors @ errors.T / known.sum()


def simplex(gram: Float[Tensor, "M M"]) -> Float[Tensor, "M"]:
    """argmin of w^T G w over w >= 0, sum w = 1, by FISTA; weights under a thousandth are left out."""
    weights = torch.full((len(gram),), 1 / len(gram), dtype=gram.dtype)
    ahead, momentum, step = weights, 1.0, 1 / float(torch.linalg.eigvalsh(gram)[-1])
    for _ in range(STEPS):
        new = _projected(ahead - step * gram @ ahead)
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = new + (momentum - 1) / following * (new - weights)
        weights, momentum = new, following
    weights = torch.where(weights < 1e-3, 0.0, weights)
    return weights / weights.sum()


def _projected(v: Float[Tensor, "M"]) -> Float[Tensor, "M"]:
    """The nearest point with entries >= 0 that sum to one."""
    falling, _ = v.sort(descending=True)
    excess = falling.cumsum(0) - 1
    count = int((falling * torch.arange(1, len(v) + 1) > excess).sum())
    return (v - excess[count - 1] / count).clamp(min=0)


def reference(gram: Float[Tensor, "2 2"]) -> float:
    """The weight of the first of two members, in closed form."""
    a, b, c = float(gram[0, 0]), float(gram[0, 1]), float(gram[1, 1])
    free = (c - b) / (a - 2 * b + c)
    return min(max(free, 0.0), 1.0)
