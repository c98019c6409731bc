"""Gaussian: a normal distribution per channel. Its P = 2C parameters are means, then log standard deviations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from runnel.head import Head
from runnel.mixer import linear

PAPERS: dict[str, str] = {}


@dataclass(frozen=True)
class Config:
    """There is nothing to set."""


class Gaussian(Head):
    def __init__(self, d_model: int, outcomes: int, config: Config) -> None:
        super().__init__()
        self.parameters_of = linear(d_model, 2 * outcomes, bias=True)

    def forward(
        self, hidden: Float[Tensor, "*B D"], positions: Int[Tensor, "*B"] | None = None
    ) -> Float[Tensor, "*B P"]:
        return self.parameters_of(hidden)

    def log_prob(self, parameters: Float[Tensor, "*B P"], target: Float[Tensor, "*B C"]) -> Float[Tensor, "*B"]:
        """Summed over channels."""
        mean, log_scale = parameters.chunk(2, dim=-1)
        z = (target - mean) * (-log_scale).exp()
        return -(0.5 * z**2 + log_scale + 0.5 * math.log(2 * math.pi)).sum(-1)

    def sample(self, parameters: Float[Tensor, "*B P"], uniform: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        """By inversion."""
        mean, log_scale = parameters.chunk(2, dim=-1)
        return mean + log_scale.exp() * torch.special.ndtri(uniform)

    def mean(self, parameters: Float[Tensor, "*B P"]) -> Float[Tensor, "*B C"]:
        return parameters.chunk(2, dim=-1)[0]

    def quantile(self, parameters: Float[Tensor, "*B P"], level: float) -> Float[Tensor, "*B C"]:
        return self.sample(parameters, torch.full_like(self.mean(parameters), level))
