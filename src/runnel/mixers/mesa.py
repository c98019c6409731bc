"""MesaNet: at every token the best linear map from all past keys to their values, solved for and not approached.

Paper: "MesaNet: Sequence Modeling by Locally Optimal Test-Time Training" (2025, 2506.05233).

    q, k, v = silu(conv(W x));   q, k of unit length
    a_t = sigmoid(W_a x_t + b_a),   beta_t = sigmoid(W_b x_t + b_b)
    G_t = a_t G_p + beta_t v_t k_t^T,   H_t = a_t H_p + beta_t k_t k_t^T             (eq. 6, 7)
    o_t = G_t (H_t + Lambda)^-1 q_t,   y_t = W_o RMSNorm(o_t)                        (eq. 5)

That map minimises the decayed squared errors of all past pairs plus a penalty Lambda on its size (eq. 4). The inverse
is taken by conjugate gradients; each of their products H_t p is a scan of its own, so that no H_t is ever written out.

| code | paper |
|---|---|
| memory.values, memory.keys | G and H, transposed |
| penalty_min, penalty | the lower bound of Lambda, 0.25; softplus of the rest, one per channel |
| iterations | products of the solver: k, 30. As many as a head has channels solve it, twice as many mend rounding |

Deviates: v goes through the short convolution, too; a token's solve stops when its residual is at rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from runnel.lineage import Lineage
from runnel.mixer import Mixer, RMSNorm, head_width, linear, parameter
from runnel.mixers import DeltaHeads
from runnel.ops.conjugate_gradient import solve
from runnel.ops.outer import outer_scan

PAPERS = {"MesaNet: Sequence Modeling by Locally Optimal Test-Time Training": "2506.05233"}


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    conv: int = 4
    iterations: int = 30
    penalty_min: float = 0.25

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"mesa needs iterations >= 1; got {self.iterations}")
        if not 0 < self.penalty_min < 1:
            raise ValueError(f"mesa needs 0 < penalty_min < 1; got {self.penalty_min}")


class State(NamedTuple):
    tail: Tensor  # (B, W-1, 3 D)
    keys: Tensor  # (B, H, K, K)
    values: Tensor  # (B, H, K, K)


class Mesa(Mixer):
    variants = ({"head_dim": 4},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.width, self.penalty_min = head_width(d_model, config.head_dim), config.penalty_min
        self.iterations = min(config.iterations, 2 * self.width)
        self.heads = d_model // self.width
        self.inputs = DeltaHeads(d_model, self.heads, self.width, self.width, config.conv)
        self.rates = linear(d_model, 2 * self.heads, bias=True)
        rest = torch.tensor(1 - config.penalty_min)  # Lambda begins at 1
        self.penalty = parameter(torch.expm1(rest).log().expand(self.heads, self.width).clone())
        self.norm = RMSNorm(self.width)
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        tail = self.zeros(batch_size, *self.inputs.tail_shape)
        memories = [self.zeros(batch_size, self.heads, self.width, self.width) for _ in range(2)]
        return State(tail, *memories)

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        q, k, v, tail = self.inputs(x, state.tail, lineage)
        log_decay, beta, penalty = self._rates(x)

        def with_gram(p: Tensor) -> Tensor:
            return outer_scan(p, k, beta * k, log_decay, state.keys, lineage)[0] + penalty * p

        y, values = outer_scan(solve(with_gram, q, self.iterations), k, beta * v, log_decay, state.values, lineage)
        _, keys = outer_scan(k, k, beta * k, log_decay, state.keys, lineage)
        return self._output(y), State(tail, keys, values)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        q, k, v = self.inputs.reference(x)
        log_decay, beta, penalty = self._rates(x)
        _, h, g = self.init_state(x.shape[0])
        outputs = []
        for t in range(x.shape[1]):
            a, key, value = log_decay[:, t].exp()[..., None, None], k[:, t, :, :, None], (beta * v)[:, t, :, :, None]
            h = a * h + beta[:, t, ..., None] * key @ key.mT
            g = a * g + value @ key.mT
            outputs.append((g @ torch.linalg.solve(h + torch.diag_embed(penalty), q[:, t, :, :, None]))[..., 0])
        return self._output(torch.stack(outputs, dim=1))

    def _rates(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log a (B, T, H), beta (B, T, H, 1), Lambda (H, K)."""
        decay, beta = self.rates(x).chunk(2, dim=-1)
        return logsigmoid(decay), beta.sigmoid()[..., None], softplus(self.penalty) + self.penalty_min

    def _output(self, y: Tensor) -> Tensor:
        return self.out(self.norm(y).flatten(-2))
