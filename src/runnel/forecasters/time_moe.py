"""Time-MoE: a decoder over single rows with sparse experts, and heads of several lengths that reach any horizon.

Paper: "Time-MoE: Billion-Scale Time Series Foundation Models with Mixture of Experts" (2024, 2409.16040), section 3.

    h_t = silu(W x_t) * (V x_t)                                                        (1)
    u = h + Attention(RMSNorm(h)), causal with rotary positions                        (2)
    h = u + sum over the top k experts e of s_e E_e(z) + sigmoid(W_0 z) E_0(z),  z = RMSNorm(u)   (3)
    head p: the next p rows after row t, W_p h_t, for p of several lengths             (4)
    loss = mean over heads of the Huber loss of every row's forecasts, and the balance of experts   (5)
    forecast: the longest head that is no longer than what lacks, fed back, until none lacks        (6)

| code | paper |
|---|---|
| mixer | attention by default; any of Runnel's mixers does |
| experts, active, expand | N = 8, K = 2, and the width of one expert / D |
| heads | P of (4) = 1, 8, 32, 64 |

(3) is Runnel's `moe` with a shared `swiglu` beside it: weights of the chosen experts sum to 1 there, and the balance
loss is its own. (6) carries the mixers' states on: no row is read twice. Channels are apart. Heads longer than the
horizon are not made, as they are never used.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu, smooth_l1_loss

from runnel.blocks import moe, swiglu
from runnel.mixer import linear
from runnel.model import Layer
from runnel.windows import FitConfig, Window, WindowModel, WindowShape
from runnel.windows.layers import Carried, Trunk, check_positive
from runnel.windows.model import check_norm, normalised

PAPERS = {"Time-MoE: Billion-Scale Time Series Foundation Models with Mixture of Experts": "2409.16040"}


@dataclass(frozen=True)
class Config:
    """layers: of (2) and (3). The shared expert is as wide as the active ones together."""

    mixer: str = "attention"
    d_model: int = 64
    layers: int = 2
    experts: int = 8
    active: int = 2
    expand: float = 1.0
    heads: tuple[int, ...] = (1, 8, 32, 64)
    norm: str = "revin"

    def __post_init__(self) -> None:
        check_norm(self.norm, "time_moe")
        check_positive("time_moe", self, "d_model", "layers")
        if 1 not in self.heads or sorted(set(self.heads)) != list(self.heads) or self.heads[0] < 1:
            raise ValueError(f"heads of time_moe must be rising lengths, the first of them 1; got {self.heads}")


class TimeMoE(WindowModel):
    points_only = True

    def __init__(self, shape: WindowShape, config: Config) -> None:
        super().__init__(shape)
        self.config, self.norm, width = config, config.norm, config.d_model
        self.embed = linear(1, 2 * width)
        experts = f"moe(experts={config.experts}, active={config.active}, expand={config.expand})"
        self.trunk = Trunk.of(f"({config.mixer}+{experts})*{config.layers}", None, width)
        for layer in self.trunk.layers:
            assert isinstance(layer, Layer) and isinstance(layer.block, moe.MoE)
            layer.block = WithShared(layer.block, width, config.active * config.expand)
        self.heads = nn.ModuleDict({str(p): linear(width, p) for p in config.heads if p <= shape.horizon})

    def forward(self, window: Window) -> Float[Tensor, "B H C 1"]:
        rows = window.history.transpose(1, 2).flatten(0, 1)  # (B C, L)
        carried, parts, lacking = None, [], self.shape.horizon
        while lacking:
            hidden, carried = self.read(rows, carried)
            step = max(p for p in map(int, self.heads) if p <= lacking)  # eq. (6)
            rows = self.heads[str(step)](hidden[:, -1])
            parts.append(rows)
            lacking -= step
        return torch.cat(parts, dim=1).unflatten(0, (window.batch_size, -1)).transpose(1, 2)[..., None]

    def read(
        self, rows: Float[Tensor, "B T"], carried: Carried | None = None
    ) -> tuple[Float[Tensor, "B T D"], Carried]:
        """Hidden vectors of further rows, and what is carried on."""
        gate, value = self.embed(rows[..., None]).chunk(2, dim=-1)
        return self.trunk(silu(gate) * value, carried)  # eq. (1) to (3)

    def loss(self, window: Window, config: FitConfig) -> Tensor:
        """Equation (5), in units of the window, over all rows that have one after them."""
        assert window.target is not None
        inside, loc, scale = normalised(window, self.norm)
        rows = torch.cat([inside.history, (window.target - loc) / scale], dim=1).transpose(1, 2).flatten(0, 1)
        hidden, _ = self.read(rows[:, :-1].nan_to_num())
        losses = []
        for p, head in self.heads.items():
            later = rows[:, 1:].unfold(1, int(p), 1)  # (B, T, p)
            known = ~later.isnan()
            error = smooth_l1_loss(head(hidden[:, : later.shape[1]]), later.nan_to_num(), reduction="none")
            losses.append(error.where(known, 0.0).sum() / known.sum().clamp(min=1))
        return torch.stack(losses).mean()


class WithShared(nn.Module):
    """Equation (3): routed experts, and one that every token goes to as far as its gate is open."""

    def __init__(self, routed: moe.MoE, d_model: int, expand: float) -> None:
        super().__init__()
        self.routed, self.shared = routed, swiglu.SwiGLU(d_model, swiglu.Config(expand=expand))
        self.gate = linear(d_model, 1)
        self.out = self.shared.out

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return self.routed(x) + self.gate(x).sigmoid() * self.shared(x)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Token by token."""
        gates = torch.stack([torch.sigmoid(self.gate.weight[0] @ token) for token in x.flatten(0, 1)])
        return self.routed.reference(x) + gates.view(*x.shape[:2], 1) * self.shared.reference(x)


def reference(model: TimeMoE, x: Float[Tensor, "L"]) -> Float[Tensor, "H"]:
    """Equations (1) to (4) and (6) for one normalised channel, everything read anew for every piece of the forecast."""
    rows, horizon = list(x), model.shape.horizon
    while len(rows) < len(x) + horizon:
        w, v = model.embed.weight[:, 0].chunk(2)
        h = torch.stack([silu(w * row) * (v * row) for row in rows])[None]
        for layer in model.trunk.layers:
            assert isinstance(layer, Layer) and isinstance(layer.block, WithShared)
            h = h + layer.mixer.reference(layer.mixer_norm(h))
            h = h + layer.block.reference(layer.block_norm(h))
        lacking = len(x) + horizon - len(rows)
        p = max(length for length in model.config.heads if length <= lacking)
        rows += list(model.heads[str(p)].weight @ model.trunk.norm(h)[0, -1])
    return torch.stack(rows[len(x) :])
