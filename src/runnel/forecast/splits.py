"""Splits: the last rows of each series are held out, for early stopping, for choices and for errors of intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray

from runnel.windows import SeriesTable, WindowSet, WindowShape

Array = NDArray[Any]
STAND_IN = 256
"""Windows of training that stand in where no series is long enough to hold anything out."""


def held_out(lengths: Int[Array, "S"], horizon: int, wanted: int | None) -> Int[Array, "S"]:
    """Rows of every series that are held out, a fifth where nothing else is wanted; none where it is too short."""
    rows = np.full(len(lengths), wanted) if wanted else np.maximum(horizon, lengths // 5)
    return np.where(lengths >= rows + horizon + 1, rows, 0)


def parts(table: SeriesTable, shape: WindowShape, held: Int[Array, "S"]) -> tuple[WindowSet, WindowSet]:
    """Training windows, and held-out ones; a series too short for a whole history gives one padded window."""
    ends = table.lengths - torch.from_numpy(held)
    low = torch.minimum(torch.full_like(ends, shape.history), (ends - shape.horizon).clamp(min=1))
    train, valid = table.windows(shape, low, ends), table.windows(shape, ends, table.lengths)
    return train, valid if len(valid) else train.every(max(1, len(train) // STAND_IN))
