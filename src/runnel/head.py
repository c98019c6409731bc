"""Head: a conditional distribution over the next element, of which tokens are one case."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from runnel.ops.precision import widen
from runnel.types import IGNORE


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

    def score(
        self, parameters: Float[Tensor, "*B P"], target: Int[Tensor, "*B"] | Float[Tensor, "*B C"]
    ) -> Float[Tensor, "*B"]:
        """What training makes large: the log-probability, or another proper score where there is no density."""
        return self.log_prob(parameters, target)

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


class TokenHead(Head):
    """A head over tokens whose parameters are logits: log-probabilities up to a constant."""

    def log_prob(self, parameters: Float[Tensor, "*B V"], target: Int[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """Zero where the target is `IGNORE`."""
        scores = log_softmax(widen(parameters), dim=-1)
        picked = scores.gather(-1, target.clamp(min=0)[..., None])[..., 0]
        return picked.masked_fill(target == IGNORE, 0.0)

    def sample(self, parameters: Float[Tensor, "*B V"], uniform: Float[Tensor, "*B V"]) -> Int[Tensor, "*B"]:
        """Gumbel-max."""
        return (parameters - (-uniform.log()).log()).argmax(-1)

    def mean(self, parameters: Float[Tensor, "*B V"]) -> Int[Tensor, "*B"]:
        return parameters.argmax(-1)

    def quantile(self, parameters: Float[Tensor, "*B V"], level: float) -> Float[Tensor, "*B V"]:
        raise ValueError("tokens have no order, so no quantiles")
