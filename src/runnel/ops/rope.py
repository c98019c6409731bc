"""Rotary position embedding ("RoFormer", 2021, arXiv:2104.09864, eq. 34), in the half-split layout of Llama, and the
ways to stretch it over texts that are longer than those of training.

| scaling | rate of the i-th pair, r_i = base^(-2i/K) before |
|---|---|
| `Linear` | r_i / factor ("Extending Context Window of LLMs via Positional Interpolation", 2306.15595) |
| `Dynamic` | base grows with the position once that is beyond the context of training |
| `Yarn` | slow pairs as `Linear`, fast ones unchanged, a ramp between; lengths scaled ("YaRN", 2309.00071, section 3) |
| `Llama3` | the same idea by wavelength, without the lengths |

`Dynamic` takes a token's own position for the length of the text, so that what a token becomes does not depend on the
chunks in which a text is read. For texts within the context that is what others do; beyond it they rotate all tokens of
a call by the rates of its last one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Linear:
    factor: float

    def rates(self, base: float, half: int, positions: Tensor, like: Tensor) -> Tensor:
        return plain_rates(base, half, like) / self.factor

    @property
    def gain(self) -> float:
        return 1.0


@dataclass(frozen=True)
class Dynamic:
    """context: how many tokens texts had in training."""

    factor: float
    context: int

    def rates(self, base: float, half: int, positions: Tensor, like: Tensor) -> Tensor:
        beyond = (positions + 1).clamp(min=self.context).to(like.dtype) / self.context - 1
        stretched = base * (1 + self.factor * beyond)[..., None, None] ** (half / max(half - 1, 1))
        return stretched ** (-torch.arange(half, device=like.device, dtype=like.dtype) / half)

    @property
    def gain(self) -> float:
        return 1.0


@dataclass(frozen=True)
class Yarn:
    """fast, slow: turns over `context` tokens from which on a pair keeps its rate, below which it is stretched.

    whole: the ramp between them begins and ends at whole pairs. attention: the factor of queries and keys.
    """

    factor: float
    context: int
    fast: float = 32.0
    slow: float = 1.0
    whole: bool = True
    attention: float | None = None

    def rates(self, base: float, half: int, positions: Tensor, like: Tensor) -> Tensor:
        low, high = self._pair(self.fast, base, half), self._pair(self.slow, base, half)
        if self.whole:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, 2 * half - 1)
        pairs = torch.arange(half, device=like.device, dtype=like.dtype)
        stretched = ((pairs - low) / max(high - low, 1e-3)).clamp(0, 1)
        plain = plain_rates(base, half, like)
        return plain * (1 - stretched) + plain / self.factor * stretched

    def _pair(self, turns: float, base: float, half: int) -> float:
        """The pair that makes so many turns over the context."""
        return half * math.log(self.context / (turns * 2 * math.pi)) / math.log(base)

    @property
    def gain(self) -> float:
        if self.attention is not None:
            return self.attention
        return 0.1 * math.log(self.factor) + 1 if self.factor > 1 else 1.0


@dataclass(frozen=True)
class Llama3:
    """low, high: turns over `context` tokens below which a pair is stretched, above which it keeps its rate."""

    factor: float
    context: int
    low: float = 1.0
    high: float = 4.0

    def rates(self, base: float, half: int, positions: Tensor, like: Tensor) -> Tensor:
        plain = plain_rates(base, half, like)
        turns = self.context * plain / (2 * math.pi)
        kept = ((turns - self.low) / (self.high - self.low)).clamp(0, 1)
        return plain * kept + plain / self.factor * (1 - kept)

    @property
    def gain(self) -> float:
        return 1.0


Scaling = Linear | Dynamic | Yarn | Llama3
KINDS: dict[str, type[Any]] = {"linear": Linear, "dynamic": Dynamic, "yarn": Yarn, "llama3": Llama3}


def scaling(options: Mapping[str, Any]) -> Scaling:
    """A scaling from plain values: {"kind": "yarn", "factor": 4.0, "context": 4096}."""
    kind = KINDS.get(options.get("kind", ""))
    if kind is None:
        raise ValueError(f"kind of a rope scaling must be one of {', '.join(KINDS)}; got {options.get('kind')!r}")
    known = [field.name for field in fields(kind)]
    given = {name: value for name, value in options.items() if name != "kind"}
    if unknown := set(given) - set(known):
        raise ValueError(f"rope scaling {options['kind']!r} has {', '.join(known)}; got {', '.join(sorted(unknown))}")
    return kind(**given)


def check_rotated(rotated: int | None, width: int) -> None:
    """ValueError unless so many numbers of a head of this width can be rotated."""
    if rotated is not None and (rotated % 2 or not 0 <= rotated <= width):
        raise ValueError(f"rotated must be an even number of the {width} of a head; got {rotated}")


def plain_rates(base: float, half: int, like: Tensor) -> Tensor:
    """(half,) base^(-2i/K), in the dtype and on the device of `like`."""
    return base ** (-torch.arange(half, device=like.device, dtype=like.dtype) / half)


def rope(
    x: Float[Tensor, "B T H K"],
    positions: Int[Tensor, "#B T"],
    base: float = 10_000.0,
    scaled: Scaling | None = None,
    rotated: int | None = None,
) -> Float[Tensor, "B T H K"]:
    """Rotate the first `rotated` numbers (all K of them when None, an even number) by angles positions * rate."""
    if rotated is not None and rotated < x.shape[-1]:
        turned, rest = x[..., :rotated], x[..., rotated:]
        return rest if rotated == 0 else torch.cat([rope(turned, positions, base, scaled), rest], dim=-1)
    half = x.shape[-1] // 2
    like = torch.empty(0, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32, device=x.device)
    rates = plain_rates(base, half, like) if scaled is None else scaled.rates(base, half, positions, like)
    angles = positions[..., None, None] * rates  # (B, T, 1, K/2)
    cos, sin = angles.cos(), angles.sin()
    if scaled is not None and scaled.gain != 1:
        cos, sin = cos * scaled.gain, sin * scaled.gain
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def turn_pairs(x: Float[Tensor, "*B N"], phi: Float[Tensor, "*#B S"]) -> Float[Tensor, "*B N"]:
    """The first S neighbouring pairs of x turned by phi."""
    pairs, rest = x[..., : 2 * phi.shape[-1]].unflatten(-1, (-1, 2)), x[..., 2 * phi.shape[-1] :]
    first, second = pairs.unbind(-1)
    cos, sin = phi.cos().to(x.dtype), phi.sin().to(x.dtype)
    turned = torch.stack([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return torch.cat([turned.flatten(-2), rest], dim=-1)
