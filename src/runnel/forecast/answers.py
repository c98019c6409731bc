"""Answers: forecasts as a long frame, in the units and the columns of the ecosystem."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import NDArray

from runnel.forecast.panel import Columns, Panel
from runnel.forecast.scaling import Scales

Array = NDArray[Any]


def quantile_columns(name: str, levels: Sequence[float], quantiles: Sequence[float]) -> list[tuple[str, float]]:
    """Columns and their quantiles: `-lo-90` and `-hi-90` for level 90, `-q-10` for quantile 0.1."""
    columns = []
    for level in levels:
        if not 0 < level < 100:
            raise ValueError(f"level must be in (0, 100), e.g. [80, 90]; got {level}")
        tail = (1 - level / 100) / 2
        columns += [(f"{name}-lo-{level:g}", tail), (f"{name}-hi-{level:g}", 1 - tail)]
    for q in quantiles:
        if not 0 < q < 1:
            raise ValueError(f"quantiles must be in (0, 1); got {q}")
        columns.append((f"{name}-q-{100 * q:g}", q))
    return columns


def original(values: Float[Array, "S H C"], scales: Scales, together: bool) -> Float[Array, "names H"]:
    """In units of the frame. together: the channels are the series."""
    back = values.astype(float) * scales.scale[:, None] + scales.loc[:, None]
    return back[0].T if together else back[..., 0]


def frame(found: Panel, columns: Columns, horizon: int, named: dict[str, Float[Array, "names H"]]) -> pd.DataFrame:
    """A long frame of the steps after the last row of each series; series that were left out follow with NaN."""
    times = found.calendar.after(found.last_times(), horizon)
    keys = {columns.id: np.repeat(found.ids, horizon), columns.time: times.ravel()}
    out = pd.DataFrame({**keys, **{name: values.ravel() for name, values in named.items()}})
    if not found.problems:
        return out
    lost = pd.DataFrame({columns.id: list(found.problems)})
    return pd.concat([out, lost], ignore_index=True)
