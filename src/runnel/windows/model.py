"""What a window model is: a window in, the parameters of a law of what comes next out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runnel import catalog
from runnel.head import Head
from runnel.windows.fitting import FitConfig, FitReport, minimise
from runnel.windows.series import WindowSet
from runnel.windows.window import Window, WindowShape

NORMS = ("none", "last", "mean", "revin")
EPSILON = 1e-5
Progress = Callable[[float, str], None]


@dataclass(frozen=True, eq=False)
class Law:
    """The law of every forecast value, in the units of the history.

    parameters: of the head, in units of the window; without a head K is 1 and they are the points themselves.
    """

    head: Head | None
    parameters: Float[Tensor, "B H C P"]
    loc: Float[Tensor, "B 1 C"]
    scale: Float[Tensor, "B 1 C"]

    def mean(self) -> Float[Tensor, "B H C"]:
        value = self.parameters if self.head is None else self.head.mean(self.parameters)
        return value[..., 0] * self.scale + self.loc

    def quantile(self, level: float) -> Float[Tensor, "B H C"]:
        return self._head().quantile(self.parameters, level)[..., 0] * self.scale + self.loc

    def sample(self, uniform: Float[Tensor, "B H C"]) -> Float[Tensor, "B H C"]:
        """One draw per value from noise in (0, 1)."""
        return self._head().sample(self.parameters, uniform[..., None])[..., 0] * self.scale + self.loc

    def score(self, target: Float[Tensor, "B H C"]) -> Float[Tensor, "B H C"]:
        """The head's score of targets in units of the window, zero where they are missing."""
        known = torch.where(target.isnan(), self.loc, target)
        score = self._head().score(self.parameters, ((known - self.loc) / self.scale)[..., None])
        return score.masked_fill(target.isnan(), 0.0)

    def _head(self) -> Head:
        if self.head is None:
            raise ValueError("a point forecast has no law: give the forecaster a head, or conformal intervals")
        return self.head


class WindowModel(nn.Module, ABC):
    """A forecaster by name: `__init__(shape, config)` with the Config of its page.

    norm: what is taken off a window before `forward` sees it, and put back afterwards: "none", "last" (the last value),
    "mean" (of the history), "revin" (mean and standard deviation of the history, each channel for itself).
    points_only: the model gives points and has no use for a head.
    made_from: the Config that `build` was given.
    """

    norm: str = "none"
    points_only: ClassVar[bool] = False

    def __init__(self, shape: WindowShape) -> None:
        super().__init__()
        if self.points_only and shape.outputs != 1:
            raise ValueError(f"{catalog.page_name(self)} gives points: use it without a head, with conformal intervals")
        self.shape = shape
        self.head: Head | None = None
        self.made_from: Any = None

    @abstractmethod
    def forward(self, window: Window) -> Float[Tensor, "B H C K"]:
        """From a normalised window: K numbers for every value, which the head turns into a law (K = 1: the point)."""

    def law(self, window: Window) -> Law:
        """The law of what follows a window."""
        inside, loc, scale = normalised(window, self.norm)
        features = self(inside)
        return Law(self.head, features if self.head is None else self.head(features), loc, scale)

    def loss(self, window: Window, config: FitConfig) -> Tensor:
        """What `fit` makes small: the error of points, or minus the score of the head; missing targets do not count."""
        assert window.target is not None, "training windows have targets"
        law, present = self.law(window), ~window.target.isnan()
        if self.head is not None:
            return -law.score(window.target).sum() / present.sum().clamp(min=1)
        error = torch.where(present, law.mean() - window.target, 0.0)
        return config.of_errors(error).sum() / present.sum().clamp(min=1)

    def fit(
        self,
        train: WindowSet,
        valid: WindowSet,
        config: FitConfig | None = None,
        progress: Progress = lambda done, text: None,
    ) -> FitReport:
        """Learn from windows; here by gradients, with early stopping. Models in closed form have their own."""
        return minimise(self, train, valid, config or FitConfig(), progress)

    @torch.no_grad()
    def point(self, window: Window) -> Float[Tensor, "B H C"]:
        """The means."""
        return self.law(window).mean()


def normalised(window: Window, norm: str) -> tuple[Window, Float[Tensor, "B 1 C"], Float[Tensor, "B 1 C"]]:
    """The window without its level (and scale), the level and the scale."""
    history = window.history
    assert norm in NORMS, f"norm must be one of {NORMS}; got {norm!r}"
    loc = torch.zeros_like(history[:, -1:])
    scale = torch.ones_like(loc)
    if norm == "last":
        loc = history[:, -1:]
    elif norm in ("mean", "revin"):
        loc = history.mean(1, keepdim=True)
    if norm == "revin":
        scale = (history.var(1, keepdim=True, unbiased=False) + EPSILON).sqrt()
    return replace(window, history=(history - loc) / scale), loc, scale


def check_norm(norm: str, page: str) -> None:
    """ValueError unless there is such a normalisation."""
    if norm not in NORMS:
        raise ValueError(f"norm of {page} must be one of {', '.join(NORMS)}; got {norm!r}")


def build(thing: Any, shape: WindowShape, head: Callable[[int], Head] | None = None, seed: int = 0) -> WindowModel:
    """A freshly initialised model: by the name of its page or by its Config; the same arguments give the same weights.

    head: makes a head from the number of features; `shape.outputs` says how many the model gives.
    """
    config = catalog.default_config("forecasters", thing) if isinstance(thing, str) else thing
    page = catalog.page("forecasters", catalog.page_name(config))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: WindowModel = catalog.class_in(page, WindowModel)(shape, config)
        model.head = None if head is None else head(shape.outputs)
    model.made_from = config
    return model
