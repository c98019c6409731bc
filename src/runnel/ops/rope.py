"""Rotary position embedding ("RoFormer", 2021, arXiv:2104.09864, eq. 34), in the half-split layout of Llama."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def rope(
    x: Float[Tensor, "B T H K"], positions: Int[Tensor, "#B T"], base: float = 10_000.0
) -> Float[Tensor, "B T H K"]:
    """Rotate x, K even, by angles positions * base^(-2i/K), i < K/2."""
    half = x.shape[-1] // 2
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    rates = base ** (-torch.arange(half, device=x.device, dtype=wide) / half)
    angles = positions[..., None, None] * rates  # (B, T, 1, K/2)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
