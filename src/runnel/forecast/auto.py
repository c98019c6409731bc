"""auto: a blend of everything that is cheap enough, its weights chosen without the rows that it is judged on.

Candidates are the naive forecasts, ridges of several lookbacks and normalisations, and, where the budget allows it,
trained models. `forecasters/blend` fits them before several stretches of the data and learns how to mix them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from runnel.forecasters import backbone, blend, joint_ridge, last_value, local_ridge, ridge, seasonal_naive
from runnel.forecasters.blend import Blend, Member
from runnel.windows import FitConfig, WindowShape

LOOKBACKS = (96, 336, 512, 720)
SHORT = (96, 192)
"""Lookbacks of models that may return to the level of the series."""
SEASONS = (1, 7, 28)
TRAINED_FROM = 600.0
"""Seconds of budget from which on trained models are candidates; those in closed form take a minute or two."""
TRAINED_SHARE = 0.6


@dataclass(frozen=True)
class Config:
    """budget: seconds that a fit may take. steps: of each training at most, where the budget allows for training."""

    budget: float = 300.0
    steps: int = 1500

    def __post_init__(self) -> None:
        if not self.budget > 0:
            raise ValueError(f"the budget of auto must be positive; got {self.budget}")
        if self.steps < 1:
            raise ValueError(f"steps of auto must be at least 1; got {self.steps}")

    @property
    def trains(self) -> bool:
        """Whether there is time to train candidates, whose weights are drawn."""
        return self.budget >= TRAINED_FROM


@dataclass(frozen=True)
class Line:
    """One candidate: its weight in the blend, and its mean squared error on every fold, the last one validation."""

    name: str
    history: int
    weight: float
    errors: tuple[float, ...]


def config(shape: WindowShape, longest: int, every: int, asked: Config, seed: int = 0) -> blend.Config:
    """The blend for windows of this shape. longest: rows that a history may have. every: see `blend.Config`."""
    return blend.Config(tuple(_members(shape, longest, asked, seed)), every=every)


def history(blended: blend.Config) -> int:
    """The rows that its longest member looks back."""
    return max(member.history for member in blended.members)


def lines(model: Blend) -> list[Line]:
    """What won and what everything else scored, the heaviest first."""
    found = [
        Line(member.name, member.history, weight, tuple(errors))
        for member, weight, errors in zip(model.config.members, model.weights.tolist(), model.scores, strict=True)
    ]
    return sorted(found, key=lambda line: -line.weight)


def report(model: Blend) -> str:
    """The same as text."""
    rows = [f"{'candidate':<16}{'rows back':>10}{'weight':>8}   mean squared error on each fold, validation last"]
    for line in lines(model):
        errors = "  ".join(f"{error:.4f}" for error in line.errors)
        rows.append(f"{line.name:<16}{line.history:>10}{line.weight:>8.3f}   {errors}")
    return "\n".join(rows)


def _members(shape: WindowShape, longest: int, asked: Config, seed: int) -> Iterator[Member]:
    season = shape.season
    if season == 1 or season > longest:
        yield Member("last", last_value.Config(), 1)
    else:
        for seasons in SEASONS:
            if seasons * season <= longest:
                yield Member(f"season x {seasons}", seasonal_naive.Config(season, seasons), seasons * season)
    lookbacks = [rows for rows in LOOKBACKS if rows <= longest] or [longest]
    if shape.channels > 1:
        yield Member("joint", joint_ridge.Config(), min(SHORT[0], longest))
    for rows in lookbacks:
        for anchor in ("mean", "last"):
            yield Member(f"ridge, {anchor}", ridge.Config((anchor,), (1e3,)), rows)
        for norm in ("mean", "revin"):
            yield Member(f"local, {norm}", local_ridge.Config(norm), rows)
    for rows in SHORT:
        if rows <= longest:
            yield Member("local, level", local_ridge.Config("none", 0.0), rows)
    if asked.trains:
        yield from _trained(lookbacks, asked, seed)


def _trained(lookbacks: list[int], asked: Config, seed: int) -> Iterator[Member]:
    """Small networks on patches; every one is fitted before each of four folds."""
    rows = max((rows for rows in lookbacks if rows <= LOOKBACKS[1]), default=lookbacks[0])
    patterns = ("attention", "mingru")
    seconds = TRAINED_SHARE * asked.budget / (4 * len(patterns))
    for pattern in patterns:
        fit = FitConfig(lr=1e-3, steps=asked.steps, seconds=seconds, valid_windows=512, patience=4, seed=seed)
        yield Member(pattern, backbone.Config(pattern=pattern, d_model=32, dropout=0.3), rows, fit)
