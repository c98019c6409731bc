"""Head: a conditional distribution over the next element, of which tokens are one case."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float, Int
from torch import Tensor, nn


class Head(nn.Module, ABC):
    """A distribution given by P parameters, which `forward` computes from a hidden vector:
    `__init__(d_model, outcomes, config)` with the Config of its page.

    *B stands for (B, T). positional: the distribution depends on where the element stands, and `forward` is to be given
    the positions.
    """

    positional = False

    @abstractmethod
    def forward(
        self, hidden: Float[Tensor, "*B D"], positions: Int[Tensor, "*B"] | None = None
    ) -> Float[Tensor, "*B P"]:
        """The parameters; for tokens these are the logits. positions: how many elements stand before the newest one."""

    @abstractmethod
    def log_prob(
        self, parameters: Float[Tensor, "*B P"], target: Int[Tensor, "*B"] | Float[Tensor, "*B C"]
    ) -> Float[Tensor, "*B"]:
        """Log-probability or log-density of the targets, in nats."""

    @abstractmethod
    def sample(
        self, parameters: Float[Tensor, "*B P"], uniform: Float[Tensor, "*B C"]
    ) -> Int[Tensor, "*B"] | Float[Tensor, "*B C"]:
        """One draw per row of parameters from `uniform` noise in (0, 1), a number for every token or channel."""

    @abstractmethod
    def mean(self, parameters: Float[Tensor, "*B P"]) -> Int[Tensor, "*B"] | Float[Tensor, "*B C"]:
        """The mean (for tokens: the most likely one)."""

    @abstractmethod
    def quantile(self, parameters: Float[Tensor, "*B P"], level: float) -> Float[Tensor, "*B C"]:
        """The quantile at `level` in (0, 1). ValueError where the outcomes have no order."""
