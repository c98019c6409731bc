"""Head: a conditional distribution over the next element, of which tokens are one case."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn


class Head(nn.Module):
    """A distribution given by P parameters, which `forward` computes from a hidden vector.

    *B stands for (B, T), or (N,) where the nodes of a draft tree are scored.
    """

    def forward(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B P"]:
        """The parameters; for tokens these are the logits."""
        raise NotImplementedError

    def log_prob(
        self, parameters: Float[Tensor, "*B P"], target: Int[Tensor, "*B"] | Float[Tensor, "*B C"]
    ) -> Float[Tensor, "*B"]:
        """Log-probability or log-density of the targets, in nats."""
        raise NotImplementedError

    def sample(
        self, parameters: Float[Tensor, "*B P"], uniform: Float[Tensor, "*B C"]
    ) -> Int[Tensor, "*B"] | Float[Tensor, "*B C"]:
        """One draw per row of parameters from `uniform` noise in (0, 1), a number for every token or channel."""
        raise NotImplementedError

    def mean(self, parameters: Float[Tensor, "*B P"]) -> Int[Tensor, "*B"] | Float[Tensor, "*B C"]:
        """The mean (for tokens: the most likely one)."""
        raise NotImplementedError

    def quantile(self, parameters: Float[Tensor, "*B P"], level: float) -> Float[Tensor, "*B C"]:
        """The quantile at `level` in (0, 1). ValueError where the outcomes have no order."""
        raise NotImplementedError
