"""AR-Net: an autoregression fitted by gradients, whose cost grows with its order and not with its square.

Paper: "AR-Net: A simple Auto-Regressive Neural Network for time-series" (2019, 1911.12436), section 3.

    y_t = c + w_1 y_{t-1} + ... + w_p y_{t-p}                                          (1)
    loss = mean (y_t - forecast)^2 + lambda R(w)                                       (2)
    R(w) = 1/p sum_i 2 / (1 + exp(-c1 |w_i|^(1/c2))) - 1                               (3)
    lambda = c_l (1/s - 1)                                                             (4)

| code | paper |
|---|---|
| order | p; None: the history |
| share | s, the share of lags that is expected to matter; 1: no penalty |
| strength | c_l = 0.02; the paper scales it by the square root of a loss that it takes to be known |
| C1, C2 | c1, c2 = 3, 3 |

A window is forecast step by step, each value being a lag of those after it: the state of a stream is a buffer of p
values (`step`). In training, (1) is asked of every row of a window that has p rows before it.

Deviates: one autoregression serves all channels. That of a hidden layer ("AR-Net with a hidden layer") is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runnel.mixer import parameter
from runnel.windows import FitConfig, Window, WindowModel, WindowShape
from runnel.windows.model import check_norm, normalised

PAPERS = {"AR-Net: A simple Auto-Regressive Neural Network for time-series": "1911.12436"}

C1, C2 = 3.0, 3.0
FLAT = 1e-8
"""Added to |w| in (3), whose slope has no bound at zero."""


@dataclass(frozen=True)
class Config:
    """order: p, or None for all of the history. share: in (0, 1]. strength: of the penalty. norm: see `WindowModel`."""

    order: int | None = None
    share: float = 1.0
    strength: float = 0.02
    norm: str = "none"

    def __post_init__(self) -> None:
        check_norm(self.norm, "ar_net")
        if self.order is not None and self.order < 1:
            raise ValueError(f"order of ar_net must be at least 1; got {self.order}")
        if not 0 < self.share <= 1:
            raise ValueError(f"share of ar_net must be in (0, 1]; got {self.share}")
        if self.strength < 0:
            raise ValueError(f"strength of ar_net must not be negative; got {self.strength}")


class ARNet(WindowModel):
    points_only = True

    def __init__(self, shape: WindowShape, config: Config) -> None:
        super().__init__(shape)
        self.config, self.norm = config, config.norm
        self.order = config.order or shape.history
        if self.order > shape.history:
            raise ValueError(f"order of ar_net must be at most the history, {shape.history}; got {self.order}")
        self.coefficients = nn.Parameter(torch.full((self.order,), 1 / self.order))  # w_1 first
        self.intercept = parameter(torch.zeros(()))

    def forward(self, window: Window) -> Float[Tensor, "B H C 1"]:
        buffer, rows = window.history[:, -self.order :], []
        for _ in range(self.shape.horizon):
            y = self.step(buffer)
            buffer = torch.cat([buffer[:, 1:], y[:, None]], dim=1)
            rows.append(y)
        return torch.stack(rows, dim=1)[..., None]

    def step(self, buffer: Float[Tensor, "B p C"]) -> Float[Tensor, "B C"]:
        """Equation (1): the next value after the p newest ones, oldest first."""
        return torch.einsum("bpc,p->bc", buffer, self.coefficients.flip(0)) + self.intercept

    def loss(self, window: Window, config: FitConfig) -> Tensor:
        """Equation (2) over all rows of a window that have p rows before them; missing targets end its rows."""
        assert window.target is not None
        inside, loc, scale = normalised(window, self.norm)
        rows = torch.cat([inside.history, (window.target - loc) / scale], dim=1)
        lags = rows.unfold(1, self.order + 1, 1)  # (B, rows, C, p + 1), oldest first
        known = ~lags.isnan().any(-1)
        lags = lags.nan_to_num()
        error = lags[..., -1] - lags[..., :-1] @ self.coefficients.flip(0) - self.intercept
        fit = config.of_errors(error.where(known, 0.0) * scale).sum() / known.sum().clamp(min=1)
        return fit + self.config.strength * (1 / self.config.share - 1) * self.penalty()  # eq. (4)

    def penalty(self) -> Float[Tensor, ""]:
        """Equation (3)."""
        root = (self.coefficients.abs() + FLAT) ** (1 / C2)
        return (2 / (1 + (-C1 * root).exp()) - 1).mean()


def reference(x: Sequence[float], coefficients: Sequence[float], intercept: float, horizon: int) -> list[float]:
    """Equation (1) for one series, forecasts being lags of later ones."""
    known = list(x)
    for _ in range(horizon):
        known.append(intercept + sum(w * known[-1 - lag] for lag, w in enumerate(coefficients)))
    return known[len(x) :]
