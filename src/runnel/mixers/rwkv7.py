"""RWKV-7 time mixing: a matrix state under the generalised delta rule, with a vector-valued decay and learning rate.

Paper: "RWKV-7 \"Goose\" with Expressive Dynamic State Evolution" (2025, 2503.14456).

    x^s = lerp(x_t, x_p, mu_s)  for s in r, w, k, v, a, g: token shift               (eq. 3)
    w_t = exp(-e^(-1/2) sigmoid(b_w + tanh(x^w A_w) B_w)),   a_t = sigmoid(b_a + x^a A_a B_a)   (eq. 11, 12, 4)
    k_t = W_k x^k,   kappa_t = normalise(k_t * xi),   k~_t = k_t * lerp(1, a_t, alpha)          (eq. 5-7, 15)
    v_t = W_v x^v in the first layer, after it lerp(W_v x^v, v_t of the first layer, nu_t),
          nu_t = sigmoid(b_v + x^v A_v B_v)                                          (eq. 8-10)
    S_t = S_p (Diag(w_t) - kappa_t^T (a_t * kappa_t)) + v_t^T k~_t                   (eq. 16, 17)
    p_t = GroupNorm(r_t S_t^T) + (r_t (rho * k~_t)^T) v_t                            (eq. 20, 21)
    y_t = W_o (p_t * sigmoid(x^g A_g) B_g)                                           (eq. 14, 22)

| code | paper |
|---|---|
| memory (B, H, K, V) | S transposed |
| rank; ranks | width of the low-rank maps (the paper grows it with d); those of w, a, v and g apart |
| erase_scale, key_scale, bonus | xi, alpha, rho |
| key_eps | added to the squared length of k_t * xi, as flash-linear-attention's kernels do; 0 for the exact length |
| link `value` | v_t of the first layer: the first `rwkv7` of a pattern gives it, all others take it |

Deviates: channel mixing is the block's work.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from runnel.lineage import Lineage
from runnel.links import Linked, Links, Wiring
from runnel.mixer import head_width, linear, parameter
from runnel.ops import conv
from runnel.ops.delta import dplr_scan

PAPERS = {'RWKV-7 "Goose" with Expressive Dynamic State Evolution': "2503.14456"}
VALUE = "value"


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    rank: int = 32
    ranks: Sequence[int] | None = None
    norm_eps: float = 1e-5
    key_eps: float = 0.0

    def __post_init__(self) -> None:
        if self.ranks is not None and (len(self.ranks) != 4 or min(self.ranks) < 1):
            raise ValueError(f"rwkv7 needs four ranks >= 1, of w, a, v and g; got {self.ranks}")


class State(NamedTuple):
    tail: Tensor  # (B, 1, D)
    memory: Tensor  # (B, H, K, V)


class RWKV7(Linked):
    semantics = 2
    variants = ({"ranks": [3, 4, 2, 5], "head_dim": 2, "key_eps": 1e-2},)
    places = ("{}", "{}, {}")

    def __init__(self, d_model: int, config: Config, wiring: Wiring) -> None:
        super().__init__()
        self.width = head_width(d_model, config.head_dim)
        self.heads, self.key_eps = d_model // self.width, config.key_eps
        channel = torch.arange(d_model) / d_model
        of_w, of_a, of_v, of_g = config.ranks or [config.rank] * 4
        self.mu = parameter(0.5 + 0.5 * channel.repeat(6, 1) * torch.tensor([[0.2], [0.9], [0.7], [0.7], [0.9], [0.2]]))
        self.r, self.k, self.v = [linear(d_model, d_model) for _ in range(3)]
        self.decay = nn.Sequential(linear(d_model, of_w), nn.Tanh(), linear(of_w, d_model))
        self.decay_bias = parameter(-6 + 6 * channel**0.85)  # from almost no forgetting to fast, over the channels
        self.rate = nn.Sequential(linear(d_model, of_a), linear(of_a, d_model))
        self.rate_bias = parameter(torch.zeros(d_model))
        self.gate = nn.Sequential(linear(d_model, of_g), nn.Sigmoid(), linear(of_g, d_model))
        self.erase_scale, self.key_scale = parameter(torch.full((d_model,), 0.85)), parameter(torch.ones(d_model))
        self.bonus = parameter(torch.zeros(self.heads, self.width))
        self.norm = nn.GroupNorm(self.heads, d_model, eps=config.norm_eps * self.width)
        self.out = linear(d_model, d_model)
        if VALUE in wiring.given:
            self.takes = (VALUE,)
            self.mix = nn.Sequential(linear(d_model, of_v), linear(of_v, d_model))
            self.mix_bias = parameter(torch.ones(d_model))
        else:
            self.gives = {VALUE: d_model}

    def init_state(self, batch_size: int) -> State:
        width = self.width
        return State(self.zeros(batch_size, 1, self.heads * width), self.zeros(batch_size, self.heads, width, width))

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage, links: Links
    ) -> tuple[Float[Tensor, "B T D"], State, Links]:
        before, tail = conv.shift(x, state.tail, lineage)
        r, k, v, rate, erase, log_decay, gate = self._project(x, before, links)
        y, memory = dplr_scan(r, k, v, -erase, rate * erase, log_decay, state.memory, lineage)
        return self._output(y, r, k, v, gate), State(tail, memory), {name: v.flatten(-2) for name in self.gives}

    def reference(self, x: Float[Tensor, "B T D"], links: Links) -> Float[Tensor, "B T D"]:  # type: ignore[override]
        before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)
        r, k, v, rate, erase, log_decay, gate = self._project(x, before, links)
        s, outputs = self.init_state(x.shape[0]).memory, []  # (B, H, V, K), as the paper writes it
        for t in range(x.shape[1]):
            kappa, row = erase[:, t, :, None, :], (rate * erase)[:, t, :, None, :]
            s = (
                s @ (torch.diag_embed(log_decay[:, t].exp()) - kappa.mT @ row)
                + v[:, t, :, :, None] @ k[:, t, :, None, :]
            )
            outputs.append((s @ r[:, t, :, :, None])[..., 0])
        return self._output(torch.stack(outputs, dim=1), r, k, v, gate)

    def _project(self, x: Tensor, before: Tensor, links: Links) -> tuple[Tensor, ...]:
        """r, k~, v, a, kappa, log w, each (B, T, H, K), and the output gate (B, T, D)."""
        mixed = torch.lerp(x[..., None, :], before[..., None, :], self.mu.to(x.dtype))
        xr, xw, xk, xv, xa, xg = mixed.unbind(-2)
        k, v, rate = self.k(xk), self.v(xv), (self.rate_bias + self.rate(xa)).sigmoid()
        for name in self.takes:
            v = torch.lerp(v, links[name].to(v.dtype), (self.mix_bias + self.mix(xv)).sigmoid().to(v.dtype))
        log_decay = -math.exp(-0.5) * (self.decay_bias + self.decay(xw)).sigmoid()
        written = k * torch.lerp(torch.ones_like(rate), rate, self.key_scale)
        heads = [z.unflatten(-1, (self.heads, self.width)) for z in (k * self.erase_scale, self.r(xr), written, v)]
        erase, r, written, v = heads
        rate, log_decay = [z.unflatten(-1, (self.heads, self.width)) for z in (rate, log_decay)]
        return r, written, v, rate, self._unit(erase), log_decay, self.gate(xg)

    def _unit(self, x: Tensor) -> Tensor:
        eps = self.key_eps
        return x * (x.square().sum(-1, keepdim=True) + eps).rsqrt() if eps else normalize(x, dim=-1)

    def _output(self, y: Tensor, r: Tensor, k: Tensor, v: Tensor, gate: Tensor) -> Tensor:
        flat = y.flatten(-2)
        normed = self.norm(flat.flatten(0, 1)).view_as(flat)
        bonus = (r * self.bonus * k).sum(-1, keepdim=True) * v
        return self.out((normed + bonus.flatten(-2)) * gate)
