"""Titans' neural memory: a small network that is trained as it reads, with momentum, and that forgets where it should.

Paper: "Titans: Learning to Memorize at Test Time" (2025, 2501.00663).

    q, k, v = silu(conv(W x));   q, k of unit length                                 (section 4.4)
    l(M; x) = |M(k) - v|^2 / 2                                                       (eq. 12)
    S_t = eta_t S_p - theta_t grad l(M_base; x_t)            surprise, past and momentary            (eq. 10, 14)
    M_t = (1 - alpha_t) M_p + S_t                            M_base: before the mini-batch           (eq. 13, 16)
    y_t = W_o (RMSNorm(M_t(q_t)) * sigmoid(W_g x_t))                                 (eq. 15, section 4.4)
    alpha, eta, theta = sigmoid, sigmoid, theta_max / b sigmoid of W x_t

| code | paper |
|---|---|
| layers, expand | L_M and the width of the memory's hidden layers / that of a head |
| batch | b, the chunk whose gradients are all taken at its start, and so add up: theta is per chunk |
| momentum | S; `log m` is log eta |

The parallel form is `ops.learner`'s. Deviates: gelu between the memory's layers; the gradient's factor 2 is theta's.
Attention and persistent tokens beside the memory (MAC, MAG) are not here; as layers (MAL) they are a pattern.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from runnel.lineage import Lineage
from runnel.mixer import Mixer, RMSNorm, head_width, linear, parameter
from runnel.mixers import DeltaHeads
from runnel.ops.learner import Learner, Trained, learn, reference

PAPERS = {"Titans: Learning to Memorize at Test Time": "2501.00663"}


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    layers: int = 2
    expand: int = 2
    batch: int = 16
    conv: int = 4
    theta_max: float = 0.1

    def __post_init__(self) -> None:
        if min(self.layers, self.expand, self.batch) < 1:
            found = f"layers {self.layers}, expand {self.expand}, batch {self.batch}"
            raise ValueError(f"titans needs layers, expand and batch >= 1; got {found}")
        if self.theta_max <= 0:
            raise ValueError(f"titans needs theta_max > 0; got {self.theta_max}")


class State(NamedTuple):
    tail: Tensor  # (B, W-1, 3 D)
    memory: Trained


class Titans(Mixer):
    variants = ({"layers": 1, "batch": 1, "head_dim": 4}, {"layers": 3, "batch": 5})

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.config, self.width = config, head_width(d_model, config.head_dim)
        self.heads = d_model // self.width
        self.inputs = DeltaHeads(d_model, self.heads, self.width, self.width, config.conv)
        self.rates = linear(d_model, 3 * self.heads)
        # Little forgetting (1 %), much momentum (88 %) and half the largest step at the start.
        self.rates_bias = parameter(torch.tensor([0.0, 4.6, 2.0])[:, None].repeat(1, self.heads))
        widths = [self.width, *[config.expand * self.width] * (config.layers - 1), self.width]
        self.initial = nn.ParameterList(
            parameter(torch.randn(self.heads, i + 1, o) * i**-0.5) for i, o in pairwise(widths)
        )
        self.gate = linear(d_model, d_model)
        self.norm = RMSNorm(self.width)
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        weights = [tuple(self.zeros(batch_size, *w.shape) for w in self.initial) for _ in range(3)]
        return State(self.zeros(batch_size, *self.inputs.tail_shape), Trained(*weights))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        q, k, v, tail = self.inputs(x, state.tail, lineage)
        q = q * self.width**0.5  # of unit length again, as the keys that the memory learns from
        learner = Learner(tuple(self.initial))
        y, memory = learn(learner, q, k, v, self._rates(x), self.config.batch, state.memory, lineage)
        return self._output(y, x), State(tail, memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        q, k, v = self.inputs.reference(x)
        q = q * self.width**0.5
        y = reference(Learner(tuple(self.initial)), q, k, v, self._rates(x), self.config.batch)
        return self._output(y, x)

    def _rates(self, x: Tensor) -> Tensor:
        """theta, log (1 - alpha), log eta: (B, T, H, 3)."""
        theta, keep, momentum = (self.rates(x).unflatten(-1, (3, self.heads)) + self.rates_bias).unbind(-2)
        rate = self.config.theta_max / self.config.batch * theta.sigmoid()
        return torch.stack([rate, logsigmoid(keep), logsigmoid(momentum)], dim=-1)

    def _output(self, y: Tensor, x: Tensor) -> Tensor:
        return self.out(self.norm(y).flatten(-2) * self.gate(x).sigmoid())
