"""Comba: a bilinear recurrence under closed-loop control, which corrects both what is written and what is read.

Paper: "Comba: Improving Bilinear RNNs with Closed-loop Control" (2025, 2506.02475).

    q, k, v = silu(conv(W x));   q, k of unit length;   beta_t = sigmoid(W_b x_t)
    a_t = exp(-exp(log_a) softplus(W_a x_t + b_a)),   beta~_t = sigmoid(b) beta_t
    S_t = S_p (a_t - beta~_t k_t k_t^T) + beta_t v_t k_t^T          a scalar plus a rank-one term: the state's feedback
    o_t = S_t (q_t - d k_t)                                         the output's correction
    y_t = W_o (RMSNorm(o_t) * sigmoid(W_g x_t))

| code | paper |
|---|---|
| memory (B, H, K, V) | S transposed |
| feedback, correction | b and d, one of each per head |
| initial_correction | d at the start: 0.02 for small models, 1 for large ones |

Deviates: q_t - d k_t is taken of keys and queries of unit length (the authors' kernel takes lengths off after it).
The gated delta rule erases what is left after forgetting, a_t (I - beta k k^T); here both act on S_p side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from runnel.lineage import Lineage
from runnel.mixer import RMSNorm, head_width, linear, log_uniform_inverse_softplus, parameter
from runnel.mixers import DeltaHeads, DeltaMixer, DeltaState
from runnel.ops.delta import dplr_scan

PAPERS = {"Comba: Improving Bilinear RNNs with Closed-loop Control": "2506.02475"}


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    conv: int = 4
    initial_correction: float = 0.02


class Comba(DeltaMixer):
    variants = ({"head_dim": 4, "initial_correction": 1.0},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.width = head_width(d_model, config.head_dim)
        self.heads = d_model // self.width
        self.inputs = DeltaHeads(d_model, self.heads, self.width, self.width, config.conv)
        self.rates = linear(d_model, 2 * self.heads)  # to softplus of the decay, and to beta
        self.decay_bias = parameter(log_uniform_inverse_softplus(self.heads, 1e-3, 1e-1))
        self.log_a = parameter(torch.empty(self.heads).uniform_(1, 16).log())
        self.feedback = parameter(torch.ones(self.heads))
        self.correction = parameter(torch.full((self.heads, 1), config.initial_correction))
        self.gate = linear(d_model, d_model)
        self.norm = RMSNorm(self.width)
        self.out = linear(d_model, d_model)

    def forward(
        self, x: Float[Tensor, "B T D"], state: DeltaState, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], DeltaState]:
        q, k, v, tail = self.inputs(x, state.tail, lineage)
        beta, erased, log_decay = self._rates(x)
        q = q - self.correction * k
        y, memory = dplr_scan(q, k, beta * v, k, -erased * k, log_decay, state.memory, lineage)
        return self._output(y, x), DeltaState(tail, memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        q, k, v = self.inputs.reference(x)
        beta, erased, log_decay = self._rates(x)
        s, outputs = self.init_state(x.shape[0]).memory, []  # (B, H, V, K), as the paper writes it
        eye = torch.eye(self.width, dtype=x.dtype)
        for t in range(x.shape[1]):
            key, value, read = k[:, t, :, :, None], v[:, t, :, :, None], q[:, t] - self.correction * k[:, t]
            kept = log_decay[:, t].exp()[..., None, None] * eye - erased[:, t, ..., None] * key @ key.mT
            s = s @ kept + beta[:, t, ..., None] * value @ key.mT
            outputs.append((s @ read[..., None])[..., 0])
        return self._output(torch.stack(outputs, dim=1), x)

    def _rates(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """beta and beta~ (B, T, H, 1), log a (B, T, H)."""
        decay, beta = self.rates(x).chunk(2, dim=-1)
        beta = beta.sigmoid()
        log_decay = -self.log_a.exp() * softplus(decay + self.decay_bias)
        return beta[..., None], (self.feedback.sigmoid() * beta)[..., None], log_decay

    def _output(self, y: Tensor, x: Tensor) -> Tensor:
        return self.out(self.norm(y).flatten(-2) * self.gate(x).sigmoid())
