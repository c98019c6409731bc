"""Spectral transform unit: a long convolution whose filters are not learned but the best basis of all linear memories.

Papers: "Spectral State Space Models" (2023, 2312.06837); with the factored projections of "Flash STU: Fast Spectral
Transform Units" (2024, 2409.10489).

    Z_ij = 2 / ((i + j)^3 - (i + j)),  i, j = 1..L;   sigma_k, phi_k its largest eigenpairs      (section 3)
    U+_t,k = sum over i < L of phi_k(i) v_(t-i),   U-_t,k = sum of (-1)^i phi_k(i) v_(t-i),   v = M_in x
    y_t = W_o (sum over k of sigma_k^(1/4) (M+_k * U+_t,k + M-_k * U-_t,k))

For every a in [0, 1] (the second bank: in [-1, 0]) the memory a^i is near the span of the first phi_k, however near
1 it is: the error falls exponentially with their number. So systems of long memory are learned by a convex problem.

| code | paper |
|---|---|
| length, filters | L and K |
| plus, minus (K, D) | M+ and M-, diagonal in the channels |
| tail | the last L - 1 inputs: the form of decoding is a buffer, and a token sees no farther than L |

Deviates: no autoregressive terms y_(t-2), and no direct ones of u beside the filters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.lineage import Lineage
from runnel.mixer import Mixer, linear, parameter
from runnel.ops import conv

PAPERS = {"Spectral State Space Models": "2312.06837", "Flash STU: Fast Spectral Transform Units": "2409.10489"}


@dataclass(frozen=True)
class Config:
    length: int = 128
    filters: int = 16

    def __post_init__(self) -> None:
        if not 1 <= self.filters <= self.length:
            raise ValueError(f"stu needs 1 <= filters <= length; got filters {self.filters}, length {self.length}")
        if self.length < 2:
            raise ValueError(f"stu needs length >= 2; got {self.length}")


class State(NamedTuple):
    tail: Tensor  # (B, L-1, D)


def spectral_filters(length: int, count: int) -> Float[Tensor, "{length} {count}"]:
    """phi_k sigma_k^(1/4) for the `count` largest eigenvalues, in float64."""
    i = torch.arange(1, length + 1, dtype=torch.float64)
    total = i[:, None] + i
    values, vectors = torch.linalg.eigh(2 / (total**3 - total))
    return (vectors[:, -count:] * values[-count:].clamp(min=0) ** 0.25).flip(-1)


class STU(Mixer):
    variants = ({"length": 5, "filters": 3},)
    basis: Tensor

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.length = config.length
        self.register_buffer("basis", spectral_filters(config.length, config.filters).float(), persistent=False)
        self.input = linear(d_model, d_model)
        self.plus, self.minus = [parameter(torch.randn(config.filters, d_model)) for _ in range(2)]
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, self.length - 1, self.out.in_features))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        y, tail = conv.causal_conv(self.input(x), self.kernel().flip(0).T, None, state.tail, lineage)
        return self.out(y), State(tail)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        v, outputs = self.input(x), []
        for t in range(x.shape[1]):
            y = torch.zeros_like(v[:, 0])
            for i in range(min(t + 1, self.length)):
                both = self.plus + (-1) ** i * self.minus
                y = y + (self.basis[i, :, None] * both).sum(0) * v[:, t - i]
            outputs.append(self.out(y))
        return torch.stack(outputs, dim=1)

    def kernel(self) -> Float[Tensor, "L D"]:
        """The weight of every distance: sums over the filters of both banks."""
        basis = self.basis.to(self.plus.dtype)
        sign = (-1.0) ** torch.arange(self.length, device=basis.device)[:, None]
        return basis @ self.plus + sign * (basis @ self.minus)
