"""Hydra: a state space that reads a text in both directions, as one quasiseparable matrix.

Paper: "Hydra: Bidirectional State Space Models Through Generalized Matrix Mixers" (2024, 2407.09941), section 4.

    z, x, B, C, B', C', dt, dt' = W_in u;   x, B, C, B', C' = silu(conv(x, B, C, B', C'))
    SS(x)_t = C_t^T h_t,   h_t = exp(dt_t A) h_(t-1) + dt_t B_t x_t^T                  Mamba-2's, per head
    y = shift(SS(x)) + flip(shift(SS'(flip(x)))) + (D + W_D x) * x                     (the quasiseparable matrix)
    u' = W_out (RMSNorm(y) * silu(z))

    y_t = sum over j of M_tj x_j,   M_tj = C_(t-1)^T a_(t-1) ... a_(j+1) dt_j B_j  below the diagonal,
    D_t on it,   C'_(t+1)^T a'_(t+1) ... a'_(j-1) dt'_j B'_j  above it

The upper half is there in the form `prefix` (`Lineage.with_prefix`): an encoder has whole rows as prefix. Columns after
it, and all where there is none, have the lower half and the diagonal, and go on from the state: that can be decoded. A
prefix must be in the first call of its rows: another is refused, as nothing can be read anew.

| code | paper |
|---|---|
| b, c, dt, with an axis of two | B, B'; C, C'; dt, dt' |
| last | SS(x) of the token before |
| skip, skip_of | D, W_D: a number for each head |

Deviates: the convolution sees the tokens before (the paper's is centred), so that both forms have one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import silu, softplus

from runnel.lineage import Lineage
from runnel.mixer import FORMS, Mixer, head_width, linear, log_uniform_inverse_softplus, parameter
from runnel.mixers import GatedNorm
from runnel.ops import conv
from runnel.ops.outer import outer_scan
from runnel.state import Memory

PAPERS = {"Hydra: Bidirectional State Space Models Through Generalized Matrix Mixers": "2407.09941"}


@dataclass(frozen=True)
class Config:
    expand: int = 2
    d_state: int = 64
    head_dim: int | None = None
    conv: int = 4

    def __post_init__(self) -> None:
        if min(self.expand, self.d_state, self.conv) < 1:
            raise ValueError(f"hydra needs expand, d_state and conv >= 1; got {self}")


class State(NamedTuple):
    tail: Tensor  # (B, W-1, E + 4 N)
    last: Tensor  # (B, 1, E)
    memory: Tensor  # (B, H, N, P)


class Hydra(Mixer):
    forms = (*FORMS, "prefix")
    variants = ({"d_state": 3, "head_dim": 4, "conv": 2},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.inner, self.d_state = config.expand * d_model, config.d_state
        self.width = head_width(self.inner, config.head_dim)
        self.heads = self.inner // self.width
        self.mixed = self.inner + 4 * self.d_state
        self.input = linear(d_model, self.inner + self.mixed + 2 * self.heads)
        self.conv_weight = parameter(conv.initial_filters(self.mixed, config.conv))
        self.conv_bias = parameter(torch.zeros(self.mixed))
        self.dt_bias = parameter(log_uniform_inverse_softplus(self.heads, 1e-3, 1e-1))
        self.log_a = parameter(torch.zeros(self.heads))
        self.skip, self.skip_of = parameter(torch.ones(self.heads)), linear(self.inner, self.heads)
        self.norm = GatedNorm(self.inner, 1e-5, gate_first=False)
        self.out = linear(self.inner, d_model)

    def init_state(self, batch_size: int) -> State:
        return State(
            self.zeros(batch_size, self.conv_weight.shape[1] - 1, self.mixed),
            self.zeros(batch_size, 1, self.inner),
            self.zeros(batch_size, self.heads, self.d_state, self.width),
        )

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        z, mixed, dt = self._input(x)
        mixed, tail = conv.causal_conv_silu(mixed, self.conv_weight, self.conv_bias, state.tail, lineage)
        parts = (*self._split(mixed), dt)
        read, memory = self._scan(0, parts, state.memory, lineage)
        y, last = conv.shift(read, state.last, lineage)
        if lineage.prefix is not None:
            y = y + self._backward(parts, lineage, lineage.prefix)
        return self._output(y, parts[0], z), State(tail, last, memory)

    def reference(self, x: Float[Tensor, "B T D"], prefix: int = 0) -> Float[Tensor, "B T D"]:
        """The matrix, entry by entry, times x."""
        z, mixed, dt = self._input(x)
        tail = self.init_state(x.shape[0]).tail
        x, b, c = self._split(silu(conv.reference(mixed, self.conv_weight, self.conv_bias, tail)[0]))
        a, length = (-dt * self.log_a.exp()).exp(), x.shape[1]
        y = torch.zeros_like(x)
        for t in range(length):
            for j in range(length):
                way, at, between = (0, t - 1, range(j + 1, t)) if j < t else (1, t + 1, range(t + 1, j))
                if j == t or (j > t and j >= prefix):
                    continue  # the diagonal is the output's work; nothing is above it after the prefix
                entry = dt[:, j, way] * (c[:, at, way] * b[:, j, way]).sum(-1, keepdim=True)  # (B, H)
                for k in between:
                    entry = entry * a[:, k, way]
                y[:, t] = y[:, t] + entry[..., None] * x[:, j]
        return self._output(y.flatten(-2), x, z)

    def _input(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """z, what is convolved, and dt (B, T, 2, H)."""
        z, mixed, dt = self.input(u).split([self.inner, self.mixed, 2 * self.heads], dim=-1)
        return z, mixed, softplus(dt.unflatten(-1, (2, -1)) + self.dt_bias)

    def _split(self, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, H, P); B and C (B, T, 2, N)."""
        x, b, c = mixed.split([self.inner, 2 * self.d_state, 2 * self.d_state], dim=-1)
        return x.unflatten(-1, (self.heads, -1)), b.unflatten(-1, (2, -1)), c.unflatten(-1, (2, -1))

    def _scan(self, way: int, parts: tuple[Tensor, ...], memory: Tensor, lineage: Lineage) -> tuple[Tensor, Memory]:
        """SS of one direction, (B, T, E)."""
        x, (b, c, dt) = parts[0], [part[:, :, way] for part in parts[1:]]
        rates = -dt * self.log_a.exp()
        y, after = outer_scan(c[:, :, None], b[:, :, None], dt[..., None] * x, rates, memory, lineage)
        return y.flatten(-2), after

    def _backward(self, parts: tuple[Tensor, ...], lineage: Lineage, prefix: Bool[Tensor, "B T"]) -> Tensor:
        """The upper half: the shifted scan of the prefix from its end; zero after it."""
        if bool((lineage.start > 0).any()):
            found = f"{int(lineage.start.max())} tokens before"
            raise ValueError(f"hydra reads a prefix in both directions, in the first call of a row; got {found}")
        zero, flipped = self.init_state(len(prefix)), Lineage.padded(prefix.flip(1))
        read, _ = self._scan(1, tuple(part.flip(1) for part in parts), zero.memory, flipped)
        y, _ = conv.shift(read, zero.last, flipped)
        return torch.where(prefix[..., None], y.flip(1), 0)

    def _output(self, y: Tensor, x: Tensor, z: Tensor) -> Tensor:
        own = (self.skip + self.skip_of(x.flatten(-2).to(z.dtype)))[..., None] * x
        return self.out(self.norm(y + own.flatten(-2), silu(z)))
