"""Blend: a convex combination of the forecasters that do best out of sample, as many as do well together.

Papers: "Forecast Combinations" (Timmermann, 2006) and "Persistence in forecasting performance and conditional
combination strategies" (Aiolfi and Timmermann, 2006): trim the poor, then hold on to the even mean; "Stacked
Regressions" (Breiman, 1996): weights that are not negative, learned from held-out forecasts.

    forecast = sum over the k best members m of w_m P_m,  w near 1/k                   (1)

| code | meaning |
|---|---|
| P_m | forecasts of member m |
| folds | stretches of rows that members fitted before them forecast; the last is the validation part |
| k, pull | how many are kept, chosen by folds that had no part in the order; how near w is (`windows/stacking.py`) |

Weights that are best on one stretch suit its season, and an even mean is hard to beat ("The combination of forecasts",
Bates and Granger, 1969, and much since); but an even mean of anything at all is not.

A model that is used on the rows after validation was fitted as long ago as validation is: its folds begin as long
after the rows that it was fitted on. What was true near those rows (the level of a series) may not be true later.
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
from runnel.windows.stacking import products, weights

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
    """members: at least one. cuts: rising shares of the training rows, up to which members are fitted for a fold.

    pull: towards the even mean. every: the windows that members are judged by are thinned out to one in so many.
    """

    members: tuple[Member, ...]
    cuts: tuple[float, ...] = (1 / 2, 2 / 3, 5 / 6)
    pull: float = 1.0
    every: int = 4

    def __post_init__(self) -> None:
        if not self.members or self.every < 1 or self.pull < 0:
            found = f"{len(self.members)} members, every={self.every}, pull={self.pull}"
            raise ValueError(f"blend needs members, every >= 1 and pull >= 0; got {found}")
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
        """Fit every member before every fold, and last on the whole training part; choose k and w of (1)."""
        started, folds, grams = time.perf_counter(), self.folds(train, valid), []
        for number, (learn, stop, judge) in enumerate(folds):
            forecasts = []
            for at, (member, model) in enumerate(zip(self.config.members, self._models(), strict=True)):
                done = (number + at / len(self.config.members)) / len(folds)
                progress(done, f"{member.name}, fold {number + 1} of {len(folds)}")
                learner = build(member.config, model.shape, seed=member.fit.seed)
                learner.fit(learn.seen_by(model.shape), stop.seen_by(model.shape), member.fit)
                forecasts.append(_forecasts(learner, judge.every(self.config.every)))
                model.load_state_dict(learner.state_dict())
                model.eval()
            grams.append(products(torch.stack(forecasts), _targets(judge.every(self.config.every))))
        self.scores = [list(errors) for errors in zip(*[gram.diagonal().tolist() for gram in grams], strict=True)]
        self.weights.copy_(weights(grams, self.config.pull))
        blended = float(self.weights.double() @ grams[-1] @ self.weights.double())
        return FitReport(blended, 0, time.perf_counter() - started)

    def folds(self, train: WindowSet, valid: WindowSet) -> list[tuple[WindowSet, WindowSet, WindowSet]]:
        """Windows that members are fitted on, stop by and are judged by: those up to a cut; as many rows after it as
        validation has; what follows. Last the whole training part and validation.
        """
        rows, both = train.ends(), train.joined(valid)
        until, found = torch.maximum(rows, valid.ends()), []
        for share in self.config.cuts:
            cut = (share * rows).long()
            begin = cut + until - rows
            learn, stop = train.inside(torch.zeros_like(cut), cut), both.inside(cut, begin)
            judge = both.inside(begin, until)
            if len(learn) and len(judge):
                found.append((learn, stop if len(stop) else judge, judge))
        return [*found, (train, valid, valid)]

    def _models(self) -> list[WindowModel]:
        return [member for member in self.members if isinstance(member, WindowModel)]


def _forecasts(model: WindowModel, windows: WindowSet) -> Float[Tensor, "N"]:
    seen = windows.seen_by(model.shape)
    return torch.cat([model.point(window).flatten() for window in seen.batches(BATCH)])


def _targets(windows: WindowSet) -> Float[Tensor, "N"]:
    return torch.cat([w.target.flatten() for w in windows.batches(BATCH) if w.target is not None])
