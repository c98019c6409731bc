"""The standard table of forecasting, as `runnel bench forecast` prints it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from runnel.cli import _screen

if TYPE_CHECKING:
    from runnel.forecast.standard import Line

HEAD = ["model", "horizon", "lookback", "seed", "MSE", "MAE", "CPU s", "MSE - ridge", "p"]


def standard_table(
    path: str,
    models: Sequence[str] | None,
    horizons: Sequence[int] | None,
    lookbacks: Sequence[int] | None,
    seeds: int,
    budget: float,
    as_json: bool,
) -> None:
    """Fit and print; a line of the table as soon as it is known."""
    if seeds < 1 or min((*(horizons or ()), *(lookbacks or ()), 1)) < 1:
        raise ValueError("--seeds, --horizon and --lookback must be at least 1")
    from runnel.forecast import protocol, standard

    data = protocol.read(path)
    with _screen.bar("forecasting") as bar:
        found = list(
            standard.lines(
                data,
                models or standard.MODELS,
                horizons or (96, 720),
                lookbacks or (96, 336, 512),
                range(seeds),
                budget,
                progress=bar.update,
            )
        )
        bar.update(1.0, "done")
    if as_json:
        _screen.print_json({"data": data.name, "ends": data.ends, "lines": [asdict(line) for line in found]})
    else:
        _print(data.name, found)


def _print(name: str, found: Iterable[Line]) -> None:
    found = list(found)
    windows = ", ".join(f"{n:,} at {h}" for h, n in {line.horizon: line.windows for line in found}.items())
    _screen.heading(f"{name}: test windows {windows}; standardised by the train rows, all channels")
    print("\n".join(_screen.columns([HEAD, *map(_row, found)])))
    for line in found:
        if line.report:
            _screen.heading(f"{line.model}, horizon {line.horizon}")
            print(line.report)


def _row(line: Line) -> list[Any]:
    beside = ["", ""] if line.p is None else [f"{line.difference:+.4f}", f"{line.p:.2g}"]
    figures = [f"{line.mse:.4f}", f"{line.mae:.4f}", f"{line.cpu_seconds:.0f}", *beside]
    return [line.model, str(line.horizon), str(line.lookback), str(line.seed), *figures]
