"""The standard table: models by name under `protocol`, the naive ones beside them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runnel import catalog
from runnel.forecast import auto, metrics, protocol
from runnel.forecast.choices import page_config
from runnel.forecast.protocol import Benchmark, Score
from runnel.forecasters import blend, last_value, ridge, seasonal_naive
from runnel.windows import FitConfig, WindowModel, WindowShape, build
from runnel.windows.model import Progress

MODELS = ("last_value", "seasonal_naive", "ridge", "auto")
NAIVE = (last_value.Config, seasonal_naive.Config)
NAIVE_LOOKBACK = 96


@dataclass(frozen=True)
class Line:
    """One model at one horizon. p: Diebold-Mariano against ridge at the same lookback (of auto: at 512); None for it.

    difference: mean squared error less that of this ridge. cpu_seconds: of the fit. report: what `auto` chose.
    """

    model: str
    horizon: int
    lookback: int
    seed: int
    mse: float
    mae: float
    windows: int
    cpu_seconds: float
    difference: float | None = None
    p: float | None = None
    report: str = ""


def lines(
    data: Benchmark,
    models: Sequence[str],
    horizons: Sequence[int],
    lookbacks: Sequence[int],
    seeds: Sequence[int] = (0,),
    budget: float = 300.0,
    fit: FitConfig | None = None,
    progress: Progress = lambda done, text: None,
) -> Iterator[Line]:
    """A line for every model, horizon, lookback and seed; one a horizon for what needs neither lookback nor seed."""
    cases = [(h, *case) for h in horizons for case in _cases(models, lookbacks, seeds, budget)]
    rivals: dict[tuple[int, int], Score] = {}
    for at, (horizon, name, config, lookback, seed) in enumerate(cases):
        title = f"{name}, horizon {horizon}, lookback {lookback}"

        def part(done: float, text: str, at: int = at, title: str = title) -> None:
            progress((at + done) / len(cases), f"{title}: {text}")

        part(0.0, "fitting")
        shape = data.shape(lookback, horizon)
        started = time.process_time()
        model, report = fitted(data, shape, config, seed, fit, part)
        seconds = time.process_time() - started
        score = protocol.evaluate(model, data.test(model.shape))
        rival = (horizon, lookback)
        if isinstance(config, ridge.Config):
            rivals[rival] = score
        elif rival not in rivals:
            rivals[rival] = protocol.evaluate(fitted(data, shape, ridge.Config(), 0)[0], data.test(shape))
        beside = (None, None) if isinstance(config, ridge.Config) else compared(score, rivals[rival], horizon)
        found = (score.mse, score.mae, score.windows, seconds, *beside, report)
        yield Line(name, horizon, model.shape.history, seed, *found)


def fitted(
    data: Benchmark,
    shape: WindowShape,
    config: Any,
    seed: int,
    fit: FitConfig | None = None,
    progress: Progress = lambda done, text: None,
) -> tuple[WindowModel, str]:
    """A model fitted on the train rows, with its choices made on the validation rows; what `auto` says of them."""
    if isinstance(config, auto.Config):
        longest = data.ends[0] // 4
        config = auto.config(shape, longest, 4, config, seed)
        shape = data.shape(auto.history(config), shape.horizon)
    model = build(config, shape, seed=seed)
    model.fit(data.train(shape), data.valid(shape), fit or FitConfig(seed=seed), progress)
    return model, auto.report(model) if isinstance(model, blend.Blend) else ""


def compared(score: Score, rival: Score, horizon: int) -> tuple[float, float]:
    """The difference of mean squared errors and the p-value of no difference."""
    found = metrics.diebold_mariano(np.asarray(score.losses), np.asarray(rival.losses), overlap=horizon)
    return found.difference, found.p


def _cases(
    models: Sequence[str], lookbacks: Sequence[int], seeds: Sequence[int], budget: float
) -> Iterator[tuple[str, Any, int, int]]:
    for name in models:
        config = auto.Config(budget) if name == "auto" else page_config(name)
        if isinstance(config, NAIVE):
            yield name, config, NAIVE_LOOKBACK, 0
        elif isinstance(config, auto.Config):
            yield from ((name, config, max(lookbacks), seed) for seed in (seeds if config.trains else (0,)))
        else:
            page = catalog.page("forecasters", catalog.page_name(config))
            closed = catalog.class_in(page, WindowModel).points_only
            for lookback in lookbacks:
                for seed in seeds[:1] if closed else seeds:
                    yield name, config, lookback, seed
