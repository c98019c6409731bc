"""Heads: one distribution a file. Here is what several of their pages share."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.head import Head


class Histogram(Head):
    """A head over even bins in [-limit, limit]; its P = C V parameters are the log-probabilities of bins.

    Inside a bin the density is flat. Values beyond the limits count as the first or last bin.
    """

    def __init__(self, bins: int, limit: float) -> None:
        super().__init__()
        self.bins, self.limit = bins, limit
        self.width = 2 * limit / bins

    def log_prob(self, parameters: Float[Tensor, "*B P"], target: Float[Tensor, "*B C"]) -> Float[Tensor, "*B"]:
        """Mass over width, summed over channels."""
        place = ((target + self.limit) / self.width).long().clamp(0, self.bins - 1)
        picked = self._by_channel(parameters).gather(-1, place[..., None])[..., 0]
        return (picked - math.log(self.width)).sum(-1)

    def sample(self, parameters: Float[Tensor, "*B P"], uniform: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        """By inversion."""
        mass = self._by_channel(parameters).exp()
        below = mass.cumsum(-1)
        level = uniform[..., None] * below[..., -1:]
        place = torch.searchsorted(below, level).clamp(max=self.bins - 1)
        before = below.gather(-1, place) - mass.gather(-1, place)
        share = ((level - before) / mass.gather(-1, place)).clamp(0, 1)
        return ((place + share) * self.width - self.limit)[..., 0]

    def mean(self, parameters: Float[Tensor, "*B P"]) -> Float[Tensor, "*B C"]:
        return self._by_channel(parameters).exp() @ self.centres(parameters)

    def quantile(self, parameters: Float[Tensor, "*B P"], level: float) -> Float[Tensor, "*B C"]:
        return self.sample(parameters, torch.full_like(self.mean(parameters), level))

    def centres(self, like: Tensor) -> Float[Tensor, "V"]:
        """The middle of every bin."""
        index = torch.arange(self.bins, dtype=like.dtype, device=like.device)
        return (index + 0.5) * self.width - self.limit

    def _by_channel(self, parameters: Tensor) -> Tensor:
        return parameters.unflatten(-1, (-1, self.bins))
