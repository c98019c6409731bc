"""DeltaProduct: several delta-rule steps within every token, so that its transition may be any product of reflections.

Papers: "DeltaProduct: Improving State-Tracking in Linear RNNs via Householder Products" (2025, 2502.10297).
"Unlocking State-Tracking in Linear RNNs Through Negative Eigenvalues" (2024, 2411.12537), which proposes the product.

    q, k_j, v_j = silu(conv(W x)) for j = 1..n;   q, k_j of unit length;   beta_j = beta_max sigmoid(W_j x)
    H_0 = a_t S_p,   H_j = (I - beta_j k_j k_j^T) H_(j-1) + beta_j k_j v_j^T,   S_t = H_n       (section 3, eq. 2)
    a_t = exp(-exp(log_a) softplus(W_a x_t + b_a))                                   (Gated DeltaProduct)
    o_t = S_t^T q_t,   y_t = W_o (RMSNorm(o_t) * silu(W_g x_t))

| code | paper |
|---|---|
| steps | n_h |
| beta_max | 2: eigenvalues of every factor down to -1 |
| forget | false: a_t = 1, the ungated DeltaProduct |
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad, silu, softplus

from runnel.lineage import Lineage
from runnel.mixer import RMSNorm, head_width, linear, log_uniform_inverse_softplus, parameter
from runnel.mixers import DeltaHeads, DeltaMixer, DeltaState, check_beta_max
from runnel.ops.delta import delta_scan
from runnel.ops.substeps import substeps

PAPERS = {
    "DeltaProduct: Improving State-Tracking in Linear RNNs via Householder Products": "2502.10297",
    "Unlocking State-Tracking in Linear RNNs Through Negative Eigenvalues": "2411.12537",
}


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    steps: int = 2
    conv: int = 4
    beta_max: float = 2.0
    forget: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"delta_product needs steps >= 1; got {self.steps}")
        check_beta_max("delta_product", self.beta_max)


class DeltaProduct(DeltaMixer):
    variants = ({"steps": 3, "forget": False},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.config, self.width = config, head_width(d_model, config.head_dim)
        self.heads = d_model // self.width
        self.inputs = DeltaHeads(d_model, self.heads, self.width, self.width, config.conv, config.steps)
        self.beta = linear(d_model, config.steps * self.heads)
        if config.forget:
            self.decay = linear(d_model, self.heads)
            self.decay_bias = parameter(log_uniform_inverse_softplus(self.heads, 1e-3, 1e-1))
            self.log_a = parameter(torch.empty(self.heads).uniform_(1, 16).log())
        self.gate = linear(d_model, d_model)
        self.norm = RMSNorm(self.width)
        self.out = linear(d_model, d_model)

    def forward(
        self, x: Float[Tensor, "B T D"], state: DeltaState, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], DeltaState]:
        q, k, v, tail = self.inputs(x, state.tail, lineage)
        q = pad(q[:, :, None], (0, 0, 0, 0, self.config.steps - 1, 0))  # read after the last step only
        tokens = (q, self._by_step(k), self._by_step(v), *self._rates(x))
        y, memory = substeps(delta_scan, tokens, state.memory, lineage)
        return self._output(y, x), DeltaState(tail, memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        q, k, v = self.inputs.reference(x)
        k, v, eye = self._by_step(k), self._by_step(v), torch.eye(self.width, dtype=x.dtype)
        beta, log_decay = self._rates(x)
        s, outputs = self.init_state(x.shape[0]).memory, []
        for t in range(x.shape[1]):
            s = log_decay[:, t, 0].exp()[..., None, None] * s
            for j in range(self.config.steps):
                b, key, value = beta[:, t, j, :, None, None], k[:, t, j, :, :, None], v[:, t, j, :, None, :]
                s = (eye - b * key @ key.mT) @ s + b * key @ value
            outputs.append((q[:, t, :, None, :] @ s)[..., 0, :])
        return self._output(torch.stack(outputs, dim=1), x)

    def _by_step(self, x: Tensor) -> Tensor:
        """(B, T, n, H, K)"""
        return x.unflatten(2, (self.config.steps, self.heads))

    def _rates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """beta and log a of every step, each (B, T, n, H): the first step of a token decays."""
        beta = self.config.beta_max * self.beta(x).sigmoid().unflatten(-1, (self.config.steps, self.heads))
        if not self.config.forget:
            return beta, torch.zeros_like(beta)
        log_decay = -self.log_a.exp() * softplus(self.decay(x) + self.decay_bias)
        return beta, pad(log_decay[:, :, None], (0, 0, 0, self.config.steps - 1))

    def _output(self, y: Tensor, x: Tensor) -> Tensor:
        return self.out(self.norm(y).flatten(-2) * silu(self.gate(x)))
