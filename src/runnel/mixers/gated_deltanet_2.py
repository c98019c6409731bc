"""Gated DeltaNet-2: a delta rule that decides channel by channel what it erases, and apart from that what it writes.

Paper: "Gated DeltaNet-2: Decoupling Erase and Write in Linear Attention" (2026, 2605.22791).

    q, k, v = silu(conv(W x)), q and k of unit length;   b_t = beta_max sigmoid(W_b x_t),   w_t = sigmoid(W_w x_t)
    a_t = exp(-exp(log_a) softplus(W_up W_down x_t + c))     per channel
    S_t = (I - k_t (b_t * k_t)^T) Diag(a_t) S_p + k_t (w_t * v_t)^T,   o_t = S_t^T q_t
    y_t = W_o (RMSNorm(o_t) * silu(W_g,up W_g,down x_t + c_g))

| code | paper |
|---|---|
| erase, write | b and w; the same number in all channels of both makes it `kda`, of a as well `gated_deltanet` |
| beta_max | 1; with 2 the transition has eigenvalues down to -1 |
| rank | of both low-rank maps; None: the width of a head |

Where the paper leaves room (the low-rank maps, the gate of the output), as in the layer of flash-linear-attention.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runnel.lineage import Lineage
from runnel.mixer import head_width, linear
from runnel.mixers import ChannelDecay, DeltaHeads, DeltaMixer, DeltaState, GatedNorm, check_beta_max
from runnel.ops.delta import dplr_scan

PAPERS = {"Gated DeltaNet-2: Decoupling Erase and Write in Linear Attention": "2605.22791"}


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    rank: int | None = None
    conv: int = 4
    beta_max: float = 1.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"gated_deltanet_2 needs rank >= 1; got {self.rank}")
        check_beta_max("gated_deltanet_2", self.beta_max)


class GatedDeltaNet2(DeltaMixer):
    variants = ({"beta_max": 2.0, "head_dim": 4, "rank": 3},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.width, self.beta_max = head_width(d_model, config.head_dim), config.beta_max
        self.heads, rank = d_model // self.width, config.rank or self.width
        self.inputs = DeltaHeads(d_model, self.heads, self.width, self.width, config.conv)
        self.erase, self.write = linear(d_model, d_model), linear(d_model, d_model)
        self.decay = ChannelDecay(d_model, self.heads, self.width, rank)
        self.gate = nn.Sequential(linear(d_model, rank), linear(rank, d_model, bias=True))
        self.norm = GatedNorm(self.width, config.norm_eps, gate_first=False)
        self.out = linear(d_model, d_model)

    def forward(
        self, x: Float[Tensor, "B T D"], state: DeltaState, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], DeltaState]:
        q, k, v, tail = self.inputs(x, state.tail, lineage)
        erase, write, log_decay = self._rates(x)
        read = erase * k * log_decay.exp()  # the old memory is read as it is after its decay
        y, memory = dplr_scan(q, k, write * v, read, -k, log_decay, state.memory, lineage)
        return self._output(y, x), DeltaState(tail, memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        q, k, v = self.inputs.reference(x)
        erase, write, log_decay = self._rates(x)
        s, outputs = self.init_state(x.shape[0]).memory, []
        for t in range(x.shape[1]):
            key, erased = k[:, t, :, :, None], (erase * k)[:, t, :, None, :]
            decayed = torch.diag_embed(log_decay[:, t].exp()) @ s
            s = decayed - key @ (erased @ decayed) + key @ (write * v)[:, t, :, None, :]
            outputs.append((s.mT @ q[:, t, :, :, None])[..., 0])
        return self._output(torch.stack(outputs, dim=1), x)

    def _rates(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """b, w and log a, each (B, T, H, K)."""
        erase, write = [z.sigmoid().unflatten(-1, (self.heads, self.width)) for z in (self.erase(x), self.write(x))]
        return self.beta_max * erase, write, self.decay(x)

    def _output(self, y: Tensor, x: Tensor) -> Tensor:
        gate = nn.functional.silu(self.gate(x)).unflatten(-1, (self.heads, self.width))
        return self.out(self.norm(y, gate).flatten(-2))
