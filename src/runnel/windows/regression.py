"""Sums of windows for regressions in closed form: one pass, whatever each window is shifted by.

With u = x - x_L, v = y - x_L, G = sum u u^T, C = sum u v^T and P = I - a 1^T, for windows less o = a . x:

    X^T X = P^T G P,  X^T Y = P^T (C - G a 1^T),  |Y|^2 = |V|^2 - 2 a^T C 1 + H a^T G a                (1)
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.windows.series import WindowSet

BATCH = 4096
"""Windows of one channel in a matrix product."""


class Sums(NamedTuple):
    """G, C and |V|^2 of equation (1), in float64, over so many targets."""

    gram: Float[Tensor, "L L"]
    cross: Float[Tensor, "L H"]
    square: float
    targets: int


def sums(windows: WindowSet) -> Sums:
    """One pass over windows, channels for windows of their own, those that lack a target left out."""
    shape = windows.shape
    gram = torch.zeros(shape.history, shape.history, dtype=torch.float64)
    cross = torch.zeros(shape.history, shape.horizon, dtype=torch.float64)
    square, count = 0.0, 0
    for window in windows.batches(max(1, BATCH // shape.channels)):
        assert window.target is not None
        x, y = window.history.transpose(1, 2).flatten(0, 1), window.target.transpose(1, 2).flatten(0, 1)
        known = ~y.isnan().any(1)
        if not bool(known.all()):
            x, y = x[known], y[known]
        u, v = x - x[:, -1:], y - x[:, -1:]
        gram += u.T @ u
        cross += u.T @ v
        square += float(v.square().sum(dtype=torch.float64))
        count += v.numel()
    return Sums(gram, cross, square, count)


def anchored(found: Sums, anchor: Float[Tensor, "L"]) -> tuple[Tensor, Tensor, float]:
    """X^T X, X^T Y and |Y|^2 of windows that are shifted by another anchor, eq. (1)."""
    gram, cross, horizon = found.gram, found.cross, found.cross.shape[1]
    project = torch.eye(len(gram), dtype=gram.dtype) - anchor[:, None]  # P = I - a 1^T
    square = found.square - 2 * float((anchor @ cross).sum()) + horizon * float(anchor @ gram @ anchor)
    return project.T @ gram @ project, project.T @ (cross - (gram @ anchor)[:, None]), square


def squared_error(judged: tuple[Tensor, Tensor, float], weight: Float[Tensor, "L H"]) -> float:
    """|Y - X W|^2 from the sums of the windows."""
    gram, cross, square = judged
    return square - 2 * float((weight * cross).sum()) + float((weight * (gram @ weight)).sum())
