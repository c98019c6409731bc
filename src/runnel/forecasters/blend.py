"""Blend: a convex combination of other forecasters, with weights from forecasts that were made out of sample.

Papers: "Stacked Generalization" (Wolpert, 1992) and "Stacked Regressions" (Breiman, 1996): weights that are not
negative, and that sum to one, learned from held-out forecasts.

    w = argmin over w >= 0, sum w = 1 of sum_f |Y_f - sum_m w_m P_fm|^2 / e_f + pull |w - 1/M|^2       (1)
    e_f = |Y_f - sum_m P_fm / M|^2                                                     (2)

| code | meaning |
|---|---|
| folds f | stretches between the cuts of the training part, forecast by members fitted before; the validation part |
| P_fm | forecasts of member m on fold f, M members |

Weights that are best on one stretch may suit its season only, and an even mean is hard to beat ("The combination of
forecasts", Bates and Granger, 1969, and much since). So folds count alike, and how far weights are pulled to the even
mean is chosen by what it does on a fold that had no part in them, over all folds in turn. (1) is solved by accelerated
projected gradients.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runnel.windows import FitConfig, FitReport, Window, WindowModel, WindowSet, WindowShape, build
from runnel.windows.model import Progress
from runnel.windows.stacking import chosen_pull, convex_weights, products

PAPERS: dict[str, str] = {}

BATCH = 128


@dataclass(frozen=True)
class Member:
    """config: of a page of `forecasters/`. history: rows that it looks back. fit: how it is trained."""

    name: str
    config: Any
    history: int
    fit: FitConfig = field(default_factory=FitConfig)


@dataclass(frozen=True)
class Config:
    """members: at least one. cuts: rising shares of the training rows, where folds begin. pulls: see (1).

    every: the windows that weights are learned from are thinned out to one in so many.
    """

    members: tuple[Member, ...]
    cuts: tuple[float, ...] = (1 / 2, 2 / 3, 5 / 6)
    pulls: tuple[float, ...] = (0.0, 0.1, 0.3, 1.0, 3.0, 1e6)
    every: int = 4

    def __post_init__(self) -> None:
        if not self.members or not self.pulls or self.every < 1:
            raise ValueError(
                f"blend needs members, pulls and every >= 1; got {len(self.members)} members, {self.every}"
            )
        if any(not a < b for a, b in itertools.pairwise((0.0, *self.cuts, 1.0))):
            raise ValueError(f"cuts of blend must rise and lie in (0, 1); got {self.cuts}")


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
        self.scores: list[list[float]] = []
        """Mean squared errors of every member on the folds, the last one validation, once fitted."""
        self.pull = 0.0

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
        """Fit every member before every fold, and last on the whole training part; solve (1)."""
        started, cuts = time.perf_counter(), (*self.config.cuts, 1.0)
        pairs = [(train.between(0, low), train.between(low, high)) for low, high in itertools.pairwise(cuts)]
        folds = [*[pair for pair in pairs if len(pair[0]) and len(pair[1])], (train, valid)]
        grams = []
        for number, (learn, judge) in enumerate(folds):
            forecasts = []
            for at, (member, model) in enumerate(zip(self.config.members, self._models(), strict=True)):
                done = (number + at / len(self.config.members)) / len(folds)
                progress(done, f"{member.name}, fold {number + 1} of {len(folds)}")
                learner = build(member.config, model.shape, seed=member.fit.seed)
                learner.fit(learn.seen_by(model.shape), judge.seen_by(model.shape), member.fit)
                forecasts.append(_forecasts(learner, judge.every(self.config.every)))
                model.load_state_dict(learner.state_dict())
                model.eval()
            grams.append(products(torch.stack(forecasts), _targets(judge.every(self.config.every))))
        self.scores = [list(errors) for errors in zip(*[gram.diagonal().tolist() for gram in grams], strict=True)]
        self.pull = chosen_pull(grams, self.config.pulls)
        self.weights.copy_(convex_weights(grams, self.pull))
        blended = float(self.weights.double() @ grams[-1] @ self.weights.double())
        return FitReport(blended, 0, time.perf_counter() - started)

    def _models(self) -> list[WindowModel]:
        return [member for member in self.members if isinstance(member, WindowModel)]


def _forecasts(model: WindowModel, windows: WindowSet) -> Float[Tensor, "N"]:
    seen = windows.seen_by(model.shape)
    return torch.cat([model.point(window).flatten() for window in seen.batches(BATCH)])


def _targets(windows: WindowSet) -> Float[Tensor, "N"]:
    return torch.cat([w.target.flatten() for w in windows.batches(BATCH) if w.target is not None])


def reference(gram: Float[Tensor, "2 2"]) -> float:
    """The weight of the first of two members, in closed form."""
    a, b, c = float(gram[0, 0]), float(gram[0, 1]), float(gram[1, 1])
    free = (c - b) / (a - 2 * b + c)
    return min(max(free, 0.0), 1.0)
