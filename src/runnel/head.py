"""Head: a conditional distribution over the next element, of which tokens are one case."""

from __future__ import annotations

from torch import Tensor, nn


class Head(nn.Module):
    """A distribution given by parameters (B, T, P) that `forward` computes from hidden vectors (B, T, D)."""

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden (B, T, D) -> parameters (B, T, P); for tokens these are the logits."""
        raise NotImplementedError

    def log_prob(self, parameters: Tensor, target: Tensor) -> Tensor:
        """Log-probability or log-density of the targets, in nats: (B, T)."""
        raise NotImplementedError

    def sample(self, parameters: Tensor, uniform: Tensor) -> Tensor:
        """One draw per parameter row from `uniform` noise in (0, 1), shaped as `noise_shape` says."""
        raise NotImplementedError

    def mean(self, parameters: Tensor) -> Tensor:
        """The mean (for tokens: the most likely one)."""
        raise NotImplementedError

    def quantile(self, parameters: Tensor, level: float) -> Tensor:
        """The quantile at `level` in (0, 1). ValueError where the outcomes have no order."""
        raise NotImplementedError
