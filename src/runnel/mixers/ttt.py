"""TTT layers: the state is the weights of a small model, trained on the text by gradient descent as it is read.

Paper: "Learning to (Learn at Test Time): RNNs with Expressive Hidden States" (2024, 2407.04620).

    l(W; x) = |f(W_K x; W) - W_V x|^2 / 2                    reconstruct one view from another      (eq. 4)
    W_t = W_p - eta_t grad l(W_base; x_t)                    W_base: before the mini-batch          (eq. 6)
    z_t = f(W_Q x_t; W_t)                                                                           (eq. 5)
    f(x) = x + LN(f_res(x)),   f_res linear (TTT-Linear) or two layers of width 4 with gelu (TTT-MLP)   (section 2.7)
    eta_t = eta_base sigmoid(w_eta x_t),   W_0 learned                                              (section 2.7)
    y_t = W_o (gelu(W_g x_t) * LN(z_t))                      the Mamba backbone's gate              (section 2.8)

| code | paper |
|---|---|
| learner | "linear" or "mlp" |
| batch | b, tokens of a mini-batch, 16 |
| rate | eta_base; None: 1 for "linear", 0.1 for "mlp" |

The dual form is `ops.learner`'s. Deviates: no short convolution and no rotary positions within a mini-batch; eta is
divided by the width of a head, as in the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from runnel.lineage import Lineage
from runnel.mixer import Mixer, head_width, linear, parameter
from runnel.ops.learner import Learner, Trained, learn, reference
from runnel.state import Memory

PAPERS = {"Learning to (Learn at Test Time): RNNs with Expressive Hidden States": "2407.04620"}
RATES = {"linear": 1.0, "mlp": 0.1}


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    learner: str = "linear"
    batch: int = 16
    rate: float | None = None

    def __post_init__(self) -> None:
        if self.learner not in RATES:
            raise ValueError(f"ttt needs a learner of {sorted(RATES)}; got {self.learner!r}")
        if self.batch < 1:
            raise ValueError(f"ttt needs batch >= 1; got {self.batch}")


class TTT(Mixer):
    variants = ({"learner": "mlp", "batch": 4},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.width, self.batch = head_width(d_model, config.head_dim), config.batch
        self.heads = d_model // self.width
        self.rate_scale = (RATES[config.learner] if config.rate is None else config.rate) / self.width
        self.qkv = linear(d_model, 3 * d_model)
        self.rate = linear(d_model, self.heads, bias=True)
        widths = [self.width, *([4 * self.width] if config.learner == "mlp" else []), self.width]
        self.initial = nn.ParameterList(
            parameter(0.02 * torch.randn(self.heads, i + 1, o)) for i, o in pairwise(widths)
        )
        self.inner_norm = parameter(torch.tensor([1.0, 0.0])[:, None, None].repeat(1, self.heads, self.width))
        self.gate = linear(d_model, d_model)
        self.norm = nn.LayerNorm(d_model)
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> Trained:
        base, now = [tuple(self.zeros(batch_size, *w.shape) for w in self.initial) for _ in range(2)]
        return Trained(base, now, momentum=())

    def forward(
        self, x: Float[Tensor, "B T D"], state: Trained, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], Memory]:
        z, state = learn(self._learner(), *self._tokens(x), self.batch, state, lineage)
        return self._output(z, x), state

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return self._output(reference(self._learner(), *self._tokens(x), self.batch), x)

    def _learner(self) -> Learner:
        return Learner(tuple(self.initial), self.inner_norm)

    def _tokens(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q, k, v (B, T, H, K) and the rates (B, T, H, 3): eta, no forgetting, no momentum."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, self.width)).unbind(-3)
        rate = self.rate_scale * self.rate(x).sigmoid()
        return q, k, v, torch.stack([rate, torch.zeros_like(rate), torch.full_like(rate, -torch.inf)], dim=-1)

    def _output(self, z: Tensor, x: Tensor) -> Tensor:
        return self.out(self.norm(z.flatten(-2)) * gelu(self.gate(x)))
