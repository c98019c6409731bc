"""Digits: a value as a string of digits, written one after the other; any law that a tree can draw.

Paper: "Decoding-based Regression" (2025, 2501.19383), section 3: numbers in [0, 1] as digits in base B, the first ones
first, decoded autoregressively from any feature vector.

    (y + limit) / (2 limit) = 0.d_1 d_2 .. d_K in base B                               (1)
    s_0 = tanh(W h + b),  s_j = tanh(R s_{j-1} + E_{d_j})                              (2)
    p(d_1 .. d_K | h) = prod_j softmax(U s_{j-1})_{d_j}                                (3)
    p(y) = p(d_1 .. d_K) B^K / (2 limit)                                               (4)

| code | paper |
|---|---|
| base, digits | B, K: B^K bins |
| width | of the decoder's state |

All prefixes of one length are decoded at once, so that the whole tree is known: density, mean and quantiles are exact
and need no sampled strings. Deviates: the decoder is the recurrence (2), where the paper has a small Transformer; its
unnormalised numbers (sign, exponent, mantissa), and repeated strings against errors, are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import log_softmax

from runnel.heads import Histogram
from runnel.mixer import linear, parameter

PAPERS = {"Decoding-based Regression": "2501.19383"}

MOST_BINS = 4096
"""Leaves of a tree that is still decoded as a whole."""


@dataclass(frozen=True)
class Config:
    """base, digits: B and K. width: numbers in the decoder's state. limit: values are read as in [-limit, limit]."""

    base: int = 2
    digits: int = 7
    width: int = 16
    limit: float = 5.0

    def __post_init__(self) -> None:
        if self.base < 2 or self.digits < 1 or self.base**self.digits > MOST_BINS:
            found = f"{self.base} and {self.digits}"
            raise ValueError(f"digits needs base >= 2, digits >= 1 and at most {MOST_BINS} bins; got {found}")
        if self.width < 1 or not self.limit > 0:
            raise ValueError(f"digits needs a positive width and limit; got {self.width} and {self.limit}")


class Digits(Histogram):
    def __init__(self, d_model: int, outcomes: int, config: Config) -> None:
        super().__init__(config.base**config.digits, config.limit)
        self.config, self.outcomes = config, outcomes
        self.begin = linear(d_model, config.width * outcomes, bias=True)
        self.recur = linear(config.width, config.width)
        self.digit = parameter(torch.randn(config.base, config.width))
        self.logits = linear(config.width, config.base)

    def forward(
        self, hidden: Float[Tensor, "*B D"], positions: Int[Tensor, "*B"] | None = None
    ) -> Float[Tensor, "*B P"]:
        state = self.begin(hidden).unflatten(-1, (self.outcomes, 1, -1)).tanh()  # (.., C, prefixes, width)
        mass = state.new_zeros(*state.shape[:-1])
        for place in range(self.config.digits):
            if place:
                state = (self.recur(state)[..., None, :] + self.digit).tanh().flatten(-3, -2)  # eq. (2)
            mass = (mass[..., None] + log_softmax(self.logits(state), -1)).flatten(-2)  # eq. (3)
        return mass.flatten(-2)


def reference(head: Digits, hidden: Float[Tensor, "D"], y: float) -> tuple[list[int], float]:
    """Equations (1) to (4) for one channel: the digits of y one by one, and its density."""
    config = head.config
    rest = (y + config.limit) / (2 * config.limit)
    state = (head.begin.weight @ hidden + head.begin.bias).tanh()
    digits: list[int] = []
    density = config.base**config.digits / (2 * config.limit)
    for _ in range(config.digits):
        if digits:
            state = (head.recur.weight @ state + head.digit[digits[-1]]).tanh()
        rest *= config.base
        digits.append(min(int(rest), config.base - 1))
        rest -= digits[-1]
        density *= float((head.logits.weight @ state).softmax(0)[digits[-1]].detach())
    return digits, density


def value(digits: Sequence[int], config: Config) -> float:
    """The middle of the bin that a string of digits names."""
    place = sum(d * config.base ** -(j + 1) for j, d in enumerate(digits)) + 0.5 * config.base**-config.digits
    return (2 * place - 1) * config.limit
