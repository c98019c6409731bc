"""`runnel forecast`: a table of series in, forecasts with intervals out, and a backtest beside simple models."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runnel.cli import _screen, _training

if TYPE_CHECKING:
    from runnel.forecast.backtest import Line

SHOWN = 4
"""Series in the picture and rows of each in the printed table."""


def command(
    data: Annotated[
        Path, typer.Argument(help="CSV or Parquet: columns unique_id, ds, y; or a wide table, times first.")
    ],
    horizon: Annotated[int, typer.Option(help="Steps to forecast.")] = 24,
    model: Annotated[str, typer.Option(help="A forecaster by name, a pattern of mixers, or auto.")] = "ridge",
    freq: Annotated[str | None, typer.Option(help="Step of the times: h, D, MS ...; else told from them.")] = None,
    season: Annotated[int | None, typer.Option(help="Rows of the main season; else the usual one of freq.")] = None,
    lookback: Annotated[int | None, typer.Option(help="Rows of history that the model reads.")] = None,
    head: Annotated[str | None, typer.Option(help="Law of a forecast, e.g. student_t; else conformal.")] = None,
    intervals: Annotated[str | None, typer.Option(help="law of the head, or conformal.")] = None,
    block: Annotated[int | None, typer.Option(help="Steps at a time, draws fed back; 1 is recursive.")] = None,
    level: Annotated[float, typer.Option(help="Per cent of values that the interval is to hold.")] = 90.0,
    windows: Annotated[int, typer.Option(help="Cutoffs of the backtest; 0 for none.")] = 3,
    out: Annotated[Path, typer.Option(help="CSV of the forecasts.")] = Path("forecast.csv"),
    plot: Annotated[Path, typer.Option(help="PNG of history, forecast and interval.")] = Path("forecast.png"),
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print findings as JSON.")] = False,
) -> None:
    """Forecast every series of a table, with intervals, and say how good that was in the past.

    \b
    Example:
        runnel forecast data.csv --horizon 96
    \b
    The backtest forecasts the last rows from earlier ones. Beside the model stand the
    last value, the last season again, and ridge regression; p says how likely a
    difference from ridge as large is by chance.
    """
    if windows < 0 or not 0 < level < 100:
        raise ValueError(f"--windows must be at least 0 and --level in (0, 100); got {windows} and {level:g}")
    _training.set_threads(threads)
    from runnel.forecast import Forecaster, backtest, panel

    frame = panel.read(data)
    step = int(freq) if freq is not None and freq.isdigit() else freq
    forecaster = Forecaster(horizon, step, model, head, lookback, season, intervals=intervals, block=block)
    with warnings.catch_warnings(record=True, action="always") as said, _screen.bar("forecasting") as bar:
        scored = (
            backtest.lines(forecaster, frame, windows, level, lambda d, t: bar.update(0.8 * d, t)) if windows else []
        )
        forecaster.fit(frame, progress=lambda done, text: bar.update(0.8 + 0.2 * done, text))
        forecast = forecaster.predict(level=[level])
        bar.update(1.0, "done")
    forecast.to_csv(out, index=False)
    backtest.picture(frame, forecast, forecaster, level, plot, SHOWN)
    notes = list(dict.fromkeys(str(warning.message) for warning in said))
    if json:
        found = {
            "csv": str(out),
            "plot": str(plot),
            "series": forecast[forecast.columns[0]].nunique(),
            "left_out": {str(id): text for id, text in forecaster.problems.items()},
            "notes": notes,
            "report": forecaster.report,
            "backtest": [asdict(line) for line in scored],
        }
        _screen.print_json(found)
        return
    _screen.heading(f"the next {horizon} steps, first rows")
    print(forecast.groupby(forecast.columns[0], sort=False).head(SHOWN).head(SHOWN * SHOWN).to_string(index=False))
    if scored:
        _screen.heading(f"backtest: {windows} cutoffs, {horizon} steps each")
        print("\n".join(_screen.columns([_head(level), *map(_row, scored)])))
    _screen.heading("fit")
    print(forecaster.report)
    if len(forecaster.gaps):
        print(f"gaps in {forecaster.gaps['unique_id'].nunique()} series were filled: {len(forecaster.gaps)} in all")
    print("\n".join([*notes, f"forecasts in {out}, picture in {plot}"]))


def _head(level: float) -> list[str]:
    return ["model", "MAE", "MASE", "RMSSE", "skill", f"in {level:g}% interval", "p"]


def _row(line: Line) -> list[str]:
    p = "" if line.p is None else f"{line.p:.2g}"
    errors = [f"{value:.4g}" for value in (line.mae, line.mase, line.rmsse)]
    return [line.model, *errors, f"{line.skill:+.1%}", f"{line.coverage:.0%}", p]
