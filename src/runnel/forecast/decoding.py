"""Decoding: from what a model gives to a forecast of h steps.

    direct       the model gives all h steps at once                                   (1)
    block        it gives b < h steps; draws of them are read as history, and so on    (2)
    recursive    (2) with b = 1

Fed back are whole sample paths, never means or medians: the mean of what follows a draw is not what follows the mean,
and spread that is not fed back does not grow. Draws come from the head's law, or, for models that give points, from
whole stretches of held-out errors. All series share the noise of a path, so that the forecast of a series does not
depend on which others there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.forecast.conformal import HeldOut, spread
from runnel.windows import Law, SeriesTable, Window, WindowModel

BATCH = 1024


@dataclass(frozen=True, eq=False)
class Direct:
    """Equation (1). held_out: the errors that intervals and draws are made of; None where the head's law says them."""

    law: Law
    held_out: HeldOut | None

    def mean(self) -> Float[Tensor, "B H C"]:
        return self.law.mean()

    def quantile(self, level: float) -> Float[Tensor, "B H C"]:
        if self.held_out is None:
            return self.law.quantile(level)
        return self.law.mean() + self.held_out.quantile(level)[:, None] * spread(self.law)

    def draws(self, count: int, generator: torch.Generator) -> Iterator[Float[Tensor, "B H C"]]:
        """From the law, each value for itself; from held-out errors, whole stretches of one window."""
        for _ in range(count):
            yield drawn(self.law, self.held_out, torch.rand(self.law.mean().shape, generator=generator))


@dataclass(frozen=True, eq=False)
class Paths:
    """Equation (2). values: N sample paths."""

    values: Float[Tensor, "N B H C"]

    def mean(self) -> Float[Tensor, "B H C"]:
        return self.values.mean(0)

    def quantile(self, level: float) -> Float[Tensor, "B H C"]:
        """Of the paths at each step, on the line between neighbours."""
        ordered, place = self.values.sort(dim=0).values, level * (len(self.values) - 1)
        low, high = ordered[int(place)], ordered[min(int(place) + 1, len(ordered) - 1)]
        return low + (place - int(place)) * (high - low)

    def draws(self, count: int, generator: torch.Generator) -> Iterator[Float[Tensor, "B H C"]]:
        """The paths themselves."""
        assert count == len(self.values), "as many paths as are asked for"
        yield from self.values


Forecasts = Direct | Paths


@torch.no_grad()
def direct(model: WindowModel, table: SeriesTable, held_out: HeldOut | None) -> list[Direct]:
    """Forecasts of all series, in their order."""
    return [Direct(model.law(window), held_out) for window in table.latest(model.shape).batches(BATCH)]


@torch.no_grad()
def rolled(
    model: WindowModel, table: SeriesTable, horizon: int, held_out: HeldOut | None, count: int, seed: int
) -> list[Paths]:
    """Forecasts of all series from `count` paths of each."""
    windows = table.latest(replace(model.shape, horizon=horizon))  # covariates known ahead reach to the last step
    made = windows.batches(max(1, BATCH // count))
    return [Paths(_paths(model, window, horizon, held_out, count, seed)) for window in made]


def _paths(
    model: WindowModel, window: Window, horizon: int, held_out: HeldOut | None, count: int, seed: int
) -> Float[Tensor, "N B H C"]:
    length, step, rows = model.shape.history, model.shape.horizon, window.batch_size
    generator, again = torch.Generator().manual_seed(seed), torch.arange(rows).repeat(count)
    history, future, static = (
        None if part is None else part[again] for part in (window.history, window.future, window.static)
    )
    assert history is not None, "windows have a history"
    parts: list[Tensor] = []
    for at in range(0, horizon, step):
        seen = None if future is None else future[:, at : at + length + step]
        law = model.law(Window(history, future=seen, static=static))
        parts.append(drawn(law, held_out, shared_noise(count, rows, step, history.shape[2], generator)))
        history = torch.cat([history, parts[-1]], dim=1)[:, -length:]
    return torch.cat(parts, dim=1).unflatten(0, (count, rows))


def drawn(law: Law, held_out: HeldOut | None, noise: Float[Tensor, "B b C"]) -> Float[Tensor, "B b C"]:
    """A draw of every value from noise in [0, 1): of the head's law, or its mean and the errors of one window."""
    if held_out is None:
        return law.sample(noise.clamp(1e-6, 1 - 1e-6))
    errors = held_out.some()
    rows = (noise[:, 0] * len(errors)).long().clamp(max=len(errors) - 1)  # (B, C): which window
    return law.mean() + errors[rows].transpose(1, 2) * spread(law)


def shared_noise(
    count: int, rows: int, step: int, channels: int, generator: torch.Generator
) -> Float[Tensor, "N*B b C"]:
    """Noise of every path, the same for all series."""
    return torch.rand(count, step, channels, generator=generator).repeat_interleave(rows, dim=0)
