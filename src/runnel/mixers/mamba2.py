"""Mamba-2: a selective state-space layer with one decay per head, computed as masked matrix products.

Paper: "Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State Space Duality"
(2024, 2405.21060).

    z, x, B, C, dt = W_in u;   x, B, C = silu(conv(x, B, C))                         (section 7.1)
    dt_t = softplus(dt_t + b_dt),   a_t = exp(dt_t A),  A = -exp(log_a) one per head
    h_t = a_t h_p + dt_t B_t x_t^T,   y_t = h_t^T C_t + D x_t                        (eq. 1, 2 of section 2, SSD)
    u' = W_out RMSNorm(y * silu(z))

| code | paper |
|---|---|
| head_dim | P = 64 |
| d_state | N |
| groups | B and C are shared by the heads of a group; one group: by all (multi-value, section 7.2) |
| heads | number of heads, where it is not expand * d / P |
| norm_groups | the output norm is taken over so many parts of the channels (section 8.2) |
| dt_range | limits of dt after the softplus |
| norm | "gated" as above; "ungated": RMSNorm(y) * silu(z); None: y * silu(z) |
| scales, out_scale | what z, x, B, C, dt and the output are multiplied by, as in Falcon-H1 |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import silu, softplus

from runnel.lineage import Lineage
from runnel.mixer import Mixer, head_width, linear, log_uniform_inverse_softplus, parameter
from runnel.mixers import GatedNorm
from runnel.ops import conv
from runnel.ops.outer import outer_scan

PAPERS = {
    "Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State Space Duality": (
        "2405.21060"
    )
}
NORMS = ("gated", "ungated", None)


@dataclass(frozen=True)
class Config:
    expand: int = 2
    d_state: int = 64
    head_dim: int | None = None
    conv: int = 4
    heads: int | None = None
    groups: int = 1
    norm_groups: int = 1
    norm_eps: float = 1e-6
    bias: bool = False
    conv_bias: bool = True
    dt_range: Sequence[float] | None = None
    norm: str | None = "gated"
    scales: Sequence[float] | None = None
    out_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.norm not in NORMS or (self.scales is not None and len(self.scales) != 5):
            raise ValueError(f"mamba2 needs a norm of {NORMS} and five scales; got {self.norm!r}, {self.scales}")


class State(NamedTuple):
    tail: Tensor  # (B, W-1, E + 2GN)
    memory: Tensor  # (B, H, N, P)


class Mamba2(Mixer):
    variants = (
        {"heads": 6, "head_dim": 2, "d_state": 4, "groups": 2, "norm_groups": 3, "bias": True, "conv_bias": False},
        {"dt_range": [0.01, 0.05]},
        {"norm": "ungated", "norm_groups": 2},
        {"norm": None, "scales": [0.5, 2.0, 3.0, 0.2, 1.5], "out_scale": 0.7, "groups": 2, "head_dim": 4},
    )

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        inner = config.expand * d_model if config.heads is None else config.heads * (config.head_dim or 64)
        self.config, self.inner, self.d_state, self.groups = config, inner, config.d_state, config.groups
        self.width = head_width(inner, config.head_dim)
        self.heads = inner // self.width
        if self.heads % self.groups or self.inner % config.norm_groups:
            required = f"groups that divide its {self.heads} heads and norm_groups that divide its {inner} channels"
            raise ValueError(f"mamba2 needs {required}; got {self.groups}, {config.norm_groups}")
        self.mixed = self.inner + 2 * self.groups * self.d_state
        self.input = linear(d_model, self.inner + self.mixed + self.heads, config.bias)
        self.conv_weight = parameter(conv.initial_filters(self.mixed, config.conv))
        self.conv_bias = parameter(torch.zeros(self.mixed)) if config.conv_bias else None
        self.dt_bias = parameter(log_uniform_inverse_softplus(self.heads, 1e-3, 1e-1))
        self.log_a = parameter(torch.empty(self.heads).uniform_(1, 16).log())
        self.skip = parameter(torch.ones(self.heads, 1))
        norm = (inner, config.norm_eps, config.norm_groups, config.norm == "gated")
        self.norm = None if config.norm is None else GatedNorm(*norm)
        self.out = linear(self.inner, d_model, config.bias)

    def init_state(self, batch_size: int) -> State:
        tail = self.zeros(batch_size, self.conv_weight.shape[1] - 1, self.mixed)
        return State(tail, self.zeros(batch_size, self.heads, self.d_state, self.width))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        z, mixed, dt = self._input(x)
        mixed, tail = conv.causal_conv_silu(mixed, self.conv_weight, self.conv_bias, state.tail, lineage)
        x, b, c = self._split(mixed)
        y, memory = outer_scan(c, b, dt[..., None] * x, -dt * self.log_a.exp(), state.memory, lineage)
        return self._output(y + self.skip * x, z), State(tail, memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        z, mixed, dt = self._input(x)
        zero = self.init_state(x.shape[0])
        x, b, c = self._split(silu(conv.reference(mixed, self.conv_weight, self.conv_bias, zero.tail)[0]))
        a, h, outputs = -self.log_a.exp(), zero.memory, []
        for t in range(x.shape[1]):
            write = b[:, t, :, :, None] * (dt[:, t, :, None] * x[:, t])[:, :, None, :]
            h = (dt[:, t] * a).exp()[..., None, None] * h + write
            outputs.append((c[:, t, :, :, None] * h).sum(-2) + self.skip * x[:, t])
        return self._output(torch.stack(outputs, dim=1), z)

    def _input(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        made, scales = self.input(u), self.config.scales
        if scales is not None:
            shared = self.groups * self.d_state
            parts = made.split([self.inner, self.inner, shared, shared, self.heads], dim=-1)
            made = torch.cat([part * scale for part, scale in zip(parts, scales, strict=True)], dim=-1)
        z, mixed, dt = made.split([self.inner, self.mixed, self.heads], dim=-1)
        dt = softplus(dt + self.dt_bias)
        return z, mixed, dt if self.config.dt_range is None else dt.clamp(*self.config.dt_range)

    def _split(self, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, H, P), B and C (B, T, 1, N), or with H heads where there are several groups."""
        shared = self.groups * self.d_state
        parts = zip(mixed.split([self.inner, shared, shared], dim=-1), (self.heads, *[self.groups] * 2), strict=True)
        x, b, c = [part.unflatten(-1, (count, -1)) for part, count in parts]
        if self.groups > 1:
            b, c = [y.repeat_interleave(self.heads // self.groups, dim=2) for y in (b, c)]
        return x, b, c

    def _output(self, y: Tensor, z: Tensor) -> Tensor:
        y, gate, scale = y.flatten(-2), silu(z), self.config.out_scale
        y = self.out((y * gate).to(self.out.weight.dtype) if self.norm is None else self.norm(y, gate))
        return y if scale == 1 else y * scale
