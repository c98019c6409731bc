"""Gaussian: a normal distribution per channel. Its parameters are (B, T, 2C): means, then log standard deviations."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from runnel.head import Head
from runnel.mixer import linear

PAPERS: dict[str, str] = {}


class Gaussian(Head):
    def __init__(self, d_model: int, outcomes: int) -> None:
        super().__init__()
        self.parameters_of = linear(d_model, 2 * outcomes, bias=True)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.parameters_of(hidden)

    def log_prob(self, parameters: Tensor, target: Tensor) -> Tensor:
        """target (B, T, C) -> (B, T), summed over channels."""
        mean, log_scale = parameters.chunk(2, dim=-1)
        z = (target - mean) * (-log_scale).exp()
        return -(0.5 * z**2 + log_scale + 0.5 * math.log(2 * math.pi)).sum(-1)

    def sample(self, parameters: Tensor, uniform: Tensor) -> Tensor:
        """By inversion: uniform (B, T, C) in (0, 1) -> values (B, T, C)."""
        mean, log_scale = parameters.chunk(2, dim=-1)
        return mean + log_scale.exp() * torch.special.ndtri(uniform)

    def mean(self, parameters: Tensor) -> Tensor:
        return parameters.chunk(2, dim=-1)[0]

    def quantile(self, parameters: Tensor, level: float) -> Tensor:
        return self.sample(parameters, torch.full_like(self.mean(parameters), level))
