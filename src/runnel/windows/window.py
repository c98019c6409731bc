"""Window: a stretch of history, what is known beside it, and (in training) what came after.

Letters of these rooms: L rows of history, H rows of forecast, C channels, K numbers that a model gives per value.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class WindowShape:
    """What a window model is made for.

    history, horizon: L and H. channels: C. past, future, static: how many covariates of each kind there are.
    outputs: K, 1 for point forecasts. season: rows of the main season (24 for hours), 1 where there is none.
    """

    history: int
    horizon: int
    channels: int = 1
    past: int = 0
    future: int = 0
    static: int = 0
    outputs: int = 1
    season: int = 1

    def __post_init__(self) -> None:
        for name in ("history", "horizon", "channels", "outputs", "season"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} of a window must be at least 1; got {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class Window:
    """A batch of windows.

    history: without missing values. target: what came after, NaN where it is missing; None when it is to be forecast.
    past: covariates known up to now; future: covariates known over history and horizon; static: one value a series.
    """

    history: Float[Tensor, "B L C"]
    target: Float[Tensor, "B H C"] | None = None
    past: Float[Tensor, "B L P"] | None = None
    future: Float[Tensor, "B L+H F"] | None = None
    static: Float[Tensor, "B S"] | None = None

    @property
    def batch_size(self) -> int:
        return self.history.shape[0]

    def recent(self, length: int) -> Window:
        """The same windows with the last `length` rows of history."""
        dropped = self.history.shape[1] - length
        assert dropped >= 0, "a model cannot look further back than its window"
        past = None if self.past is None else self.past[:, dropped:]
        future = None if self.future is None else self.future[:, dropped:]
        return replace(self, history=self.history[:, dropped:], past=past, future=future)
