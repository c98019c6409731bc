"""Forecaster: any model of windows over a frame of series, in the units and the columns of the frame.

    f = Forecaster(h=24, freq="h", backbone="ridge")
    f.fit(frame)                              # unique_id, ds, y in pandas or polars
    f.predict(level=[90])                     # unique_id, ds, ridge, ridge-lo-90, ridge-hi-90

fit: rows -> regular grids (`panel`) -> standardised per series (`scaling`) -> windows -> the model's own `fit`.
predict: windows -> laws or sample paths (`decoding`) -> columns of a frame (`answers`). Intervals come from the head's
law, or, for models that give points, from errors on held-out windows (`conformal`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from runnel.forecast import (
    answers,
    auto,
    conformal,
    covariates,
    cross_validation,
    decoding,
    panel,
    scaling,
    splits,
    streaming,
)
from runnel.forecast.choices import head_of, name_of, page_config
from runnel.forecast.conformal import HeldOut
from runnel.forecast.decoding import Forecasts
from runnel.forecast.panel import Columns, Panel
from runnel.forecast.scaling import Scales
from runnel.forecasters.blend import Blend
from runnel.windows import FitConfig, FitReport, SeriesTable, WindowModel, WindowShape, build
from runnel.windows.model import Progress

Array = NDArray[Any]
LONGEST_LOOKBACK = 512
AUTO_EVERY = 4
FEATURES = 16
"""Numbers that a model gives per value for a head to make its parameters from."""
INTERVALS = ("law", "conformal")


def _silent(done: float, text: str) -> None:
    """No progress."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """What `fit` leaves: the model, what its data was scaled by, and its errors on held-out windows."""

    model: WindowModel
    panel: Panel
    scales: Scales
    static: pd.DataFrame | None
    held_out: HeldOut
    report: FitReport


class Forecaster:
    """Forecasts h steps of every series of a frame.

    backbone: a page of `forecasters/` by name or Config, a pattern of mixers ("mamba2*2"), or "auto".
    freq: a pandas offset ("h", "D", "MS") or a whole number; None tells it from the times.
    head: a page of `heads/` with options, e.g. "student_t" or "quantile"; None gives points.
    intervals: "law" of the head, or "conformal", of held-out errors; None: of the head, where there is one.
    block: steps that the model forecasts at a time, a divisor of h; None: all of them at once. With fewer, draws are
        read as history and gone on from, `paths` times over; 1 is recursive forecasting. See `decoding`.
    lookback: rows of history that the model reads; None chooses by h, season and the length of the series.
    season: rows of the main season; None is the usual one of freq (24 for "h").
    past, future, static: columns of covariates known up to now, ahead of time, and one value a series.
    together: series are the channels of one table instead of each for itself; they must begin and end together.
    valid: rows at the end of each series that are held out for early stopping, choices and conformal errors; None: a
        fifth, at least h.
    fit: how a trained model is trained. id, time, target: names of columns.
    """

    def __init__(
        self,
        h: int,
        freq: Any = None,
        backbone: Any = "ridge",
        head: str | None = None,
        lookback: int | None = None,
        season: int | None = None,
        past: Sequence[str] = (),
        future: Sequence[str] = (),
        static: Sequence[str] = (),
        together: bool = False,
        valid: int | None = None,
        fit: FitConfig | None = None,
        seed: int = 0,
        id: str = "unique_id",
        time: str = "ds",
        target: str = "y",
        intervals: str | None = None,
        block: int | None = None,
        paths: int = 100,
    ) -> None:
        whole = (("h", h), ("lookback", lookback), ("season", season), ("valid", valid), ("block", block))
        for name, value in (*whole, ("paths", paths)):
            if value is not None and (not isinstance(value, int | np.integer) or value < 1):
                raise ValueError(f"{name} must be a whole number of at least 1; got {value!r}")
        if together and static:
            raise ValueError("static covariates belong to series of their own; they have no meaning with together=True")
        if together and (past or future):
            raise ValueError("covariates belong to series of their own; with together=True make them series")
        if block is not None and (h % block or past):
            found = f"block={block}, h={h} and past={list(past)}"
            raise ValueError(f"block must divide h, and past covariates are not known ahead of a block; got {found}")
        if intervals not in (None, *INTERVALS) or (intervals == "law" and head is None):
            raise ValueError(f'intervals must be "law" (with a head), "conformal" or None; got {intervals!r}, {head!r}')
        self.h, self.freq, self.head, self.lookback, self.season = h, freq, head, lookback, season
        self.together, self.valid, self.seed = together, valid, seed
        self.intervals, self.block, self.paths = intervals or ("conformal" if head is None else "law"), block, paths
        self.config = page_config(backbone)
        self.columns = Columns(id, time, target, tuple(past), tuple(future), tuple(static))
        self.fitting = fit or FitConfig(seed=seed)
        self.fitted: Fitted | None = None
        head_of(head)  # raises early

    @property
    def name(self) -> str:
        """What the column of forecasts is called: the page, or the pattern of a backbone."""
        return name_of(self.config)

    @property
    def step(self) -> int:
        """Steps that the model gives at a time."""
        return self.block or self.h

    @property
    def report(self) -> str:
        """What "auto" blended, and what every candidate scored; for another model its validation loss."""
        fitted = self._fitted()
        if isinstance(fitted.model, Blend):
            return auto.report(fitted.model)
        return f"{self.name}: validation loss {fitted.report.valid_loss:.4f} in {fitted.report.seconds:.1f} s"

    @property
    def problems(self) -> dict[Any, str]:
        """Series that were left out of the fit, and why."""
        return dict(self._fitted().panel.problems)

    @property
    def gaps(self) -> pd.DataFrame:
        """Where rows were missing inside a series."""
        return self._fitted().panel.gaps

    # ---- fitting ------------------------------------------------------------------------------------------------

    def fit(self, df: Any, static_df: Any = None, progress: Progress = _silent) -> Forecaster:
        """Learn from a long frame (pandas, polars, or a path of CSV or Parquet). ValueError names what is wrong."""
        found = panel.make(panel.to_pandas(df), self.columns, self.freq)
        static = covariates.static_table(static_df, self.columns, found)
        self.fitted = self._learn(found, static, None, progress)
        return self

    def partial_fit(self, df: Any, progress: Progress = _silent) -> Forecaster:
        """Go on with further rows: they are joined to those seen, scales stay, and training starts from these weights.

        A model in closed form is solved anew. Rows that were seen before are replaced.
        """
        if self.fitted is None:
            return self.fit(df, progress=progress)
        joined = panel.joined(self.fitted.panel, self.columns, panel.to_pandas(df))
        found = panel.make(joined, self.columns, self.fitted.panel.calendar.freq)
        self.fitted = self._learn(found, self.fitted.static, self.fitted, progress)
        return self

    def _learn(self, found: Panel, static: pd.DataFrame | None, before: Fitted | None, progress: Progress) -> Fitted:
        season = self.season or found.calendar.season
        values, lengths = scaling.arranged(found, self.together)
        held = splits.held_out(lengths, self.h, self.valid)
        shape = before.model.shape if before else self._shape(values, lengths, held, season, static)
        same = before is not None and np.array_equal(before.panel.ids, found.ids)
        scales = before.scales if before is not None and same else scaling.before(found, held, self.together)
        table = self._table(found, scales, static, None)
        train, valid = splits.parts(table, shape, held)
        model = before.model if before else build(self._config_for(shape), shape, head_of(self.head), self.seed)
        report = model.fit(train, valid, self.fitting, progress)
        return Fitted(model, found, scales, static, conformal.errors(model, valid), report)

    def _shape(
        self, values: Array, lengths: Array, held: Array, season: int, static: pd.DataFrame | None
    ) -> WindowShape:
        longest = int((lengths - held).max()) - self.step
        if longest < 1:
            needed = f"h + 1 = {self.h + 1} rows" if self.block is None else f"block + 1 = {self.block + 1} rows"
            raise ValueError(f"at least one series must have {needed}; the longest has {int(lengths.max())}: lower h")
        usual = int(np.quantile(lengths - held, 0.5)) - 2 * self.step
        wanted = min(LONGEST_LOOKBACK, max(4 * self.h, 2 * season, 16))
        history = self.lookback or max(1, min(wanted, max(usual, min(season, longest))))
        if isinstance(self.config, auto.Config):
            history = self.lookback or max(1, usual // 2)
        if self.lookback and self.lookback > longest:
            raise ValueError(f"lookback must be at most {longest} rows, with h = {self.h}; got {self.lookback}")
        kinds = (len(self.columns.past), len(self.columns.future), 0 if static is None else static.shape[1])
        shape = WindowShape(history, self.step, values.shape[1], *kinds, 1 if self.head is None else FEATURES, season)
        if isinstance(self.config, auto.Config):  # no more history than its longest member reads
            return replace(shape, history=auto.history(self._config_for(shape)))
        return shape

    # ---- forecasting --------------------------------------------------------------------------------------------

    def predict(
        self,
        df: Any = None,
        level: Sequence[float] | None = None,
        quantiles: Sequence[float] | None = None,
        futr_df: Any = None,
    ) -> Any:
        """A frame with a row for each series and step: the forecast, `-lo-90` and `-hi-90` for level 90, `-q-10`.

        df: other rows, or other series, to forecast from; None goes on after the rows that were fitted. Series left out
        have NaN. futr_df: the columns `future` for every step of every series.
        """
        answers.quantile_columns(self.name, level or (), quantiles or ())  # raises before the work
        found, scales, table = self._given(df, futr_df)
        made = self._forecasts(table, self.paths, self.seed)
        return panel.like(self._answered(made, found, level or (), quantiles or (), scales), _kind(df, futr_df))

    def sample(self, n: int = 100, df: Any = None, futr_df: Any = None, seed: int | None = None) -> Any:
        """A frame with n draws of every value: columns `{name}-sample-0` and so on.

        From the head's law, each value for itself; without a head from held-out errors, whole stretches of one window.
        With a `block` they are the paths that were gone on from.
        """
        found, scales, table = self._given(df, futr_df)
        seed = self.seed if seed is None else seed
        made, generator = self._forecasts(table, n, seed), torch.Generator().manual_seed(seed)
        parts = zip(*[forecast.draws(n, generator) for forecast in made], strict=True)
        named = {f"{self.name}-sample-{i}": self._original(part, scales) for i, part in enumerate(parts)}
        return panel.like(answers.frame(found, self.columns, self.h, named), _kind(df, futr_df))

    def cross_validation(
        self,
        df: Any,
        n_windows: int = 1,
        step_size: int | None = None,
        refit: bool = False,
        level: Sequence[float] | None = None,
        static_df: Any = None,
        progress: Progress = _silent,
    ) -> Any:
        """Forecasts from n_windows cutoffs, the last one h rows before the end, `step_size` (h) rows apart.

        Columns unique_id, ds, cutoff, y and the forecasts. refit: fit before every cutoff, else before the first only;
        covariates known ahead are those of the frame. The forecaster itself is left as it was.
        """
        step = step_size or self.h
        return cross_validation.run(self, df, n_windows, step, refit, level, static_df, progress)

    # ---- streaming ----------------------------------------------------------------------------------------------

    def begin(self, df: Any = None) -> streaming.Stream:
        """The state after the rows of the fit, or of a frame of the same series; see `runnel.forecast.streaming`."""
        return streaming.begin(self, df)

    def update(self, state: streaming.Stream, new_rows: Any) -> streaming.Stream:
        """The state after further rows, in constant time a row; the old one stays valid. new_rows: a value of every
        series in order, (S,) or (S, T), or a frame that follows at once.
        """
        return streaming.update(self, state, new_rows)

    def forecast(self, state: streaming.Stream, level: Sequence[float] = (), quantiles: Sequence[float] = ()) -> Any:
        """The frame that `predict` gives, after the newest row of a state."""
        return streaming.forecast(self, state, level, quantiles)

    # ---- parts --------------------------------------------------------------------------------------------------

    def _forecasts(self, table: SeriesTable, paths: int, seed: int) -> Sequence[Forecasts]:
        """Of all series in their order, in batches."""
        model = self._fitted().model
        if self.block is None:
            return decoding.direct(model, table, self._errors())
        return decoding.rolled(model, table, self.h, self._errors(), paths, seed)

    def _errors(self) -> HeldOut | None:
        """What intervals and draws are made of; None where the head's law says them."""
        return self._fitted().held_out if self.intervals == "conformal" else None

    def _answered(
        self,
        made: Sequence[Forecasts],
        found: Panel,
        level: Sequence[float],
        quantiles: Sequence[float],
        scales: Scales,
    ) -> pd.DataFrame:
        """The frame of means and quantiles of forecasts."""
        named = {self.name: self._original([forecast.mean() for forecast in made], scales)}
        for name, q in answers.quantile_columns(self.name, level, quantiles):
            named[name] = self._original([forecast.quantile(q) for forecast in made], scales)
        return answers.frame(found, self.columns, self.h, named)

    def _original(self, parts: Sequence[Tensor], scales: Scales) -> Array:
        return answers.original(torch.cat(list(parts)).numpy(), scales, self.together)

    def _given(self, df: Any, futr_df: Any) -> tuple[Panel, Scales, SeriesTable]:
        """The rows to forecast from: those of the fit, or others."""
        fitted = self._fitted()
        found = fitted.panel if df is None else self._panel(df)
        scales = fitted.scales if df is None else self._scales_for(found)
        ahead = covariates.ahead(futr_df, self.columns, found, scales, self.h)
        return found, scales, self._table(found, scales, fitted.static, ahead)

    def _panel(self, df: Any) -> Panel:
        return panel.make(panel.to_pandas(df), self.columns, self._fitted().panel.calendar.freq)

    def _scales_for(self, found: Panel) -> Scales:
        """Scales of the fit for series that were in it, and of their own rows for new ones."""
        fitted = self._fitted()
        if self.together:
            if not np.array_equal(found.ids, fitted.panel.ids):
                raise ValueError("series that are forecast together must be those of the fit")
            return fitted.scales
        loc, scale = scaling.statistics(found.values[:, None], found.lengths, found.lengths)
        place = {id: i for i, id in enumerate(fitted.panel.ids)}
        seen = np.array([place.get(id, -1) for id in found.ids])
        old = seen >= 0
        loc[old], scale[old] = fitted.scales.loc[seen[old]], fitted.scales.scale[seen[old]]
        return replace(fitted.scales, loc=loc, scale=scale)

    def _table(self, found: Panel, scales: Scales, static: pd.DataFrame | None, ahead: Array | None) -> SeriesTable:
        rows = None
        if static is not None:
            missing = [id for id in found.ids if id not in static.index]
            if missing:
                raise ValueError(f"static covariates must be given for every series; {missing[0]!r} has none")
            rows = torch.tensor(static.loc[found.ids].to_numpy()).float()
        return scaling.table(found, scales, len(self.columns.past), self.together, ahead, rows)

    def _config_for(self, shape: WindowShape) -> Any:
        """The Config of the model: for "auto" a blend of what the windows have room for."""
        if isinstance(self.config, auto.Config):
            return auto.config(shape, shape.history, AUTO_EVERY, self.config, self.seed)
        return self.config

    def _copy(self) -> Forecaster:
        """The same settings, not fitted."""
        other = object.__new__(Forecaster)
        other.__dict__ = {**self.__dict__, "fitted": None}
        return other

    def _fitted(self) -> Fitted:
        if self.fitted is None:
            raise ValueError("the forecaster must be fitted first: call fit(df)")
        return self.fitted


def _kind(df: Any, futr_df: Any) -> Any:
    """The frame whose kind the answer is to have."""
    return df if df is not None else futr_df
