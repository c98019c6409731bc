"""Layers that models of windows share. All rows of a window are known at once, so nothing here is causal.

Attention(Q, K, V) = softmax(Q K^T / sqrt(d)) V, per head                          (1, 1706.03762)
x = norm(x + mix(x));  x = norm(x + mlp(x))                                        (2, the same paper)
x = x + gate(mlp(norm(x))), along one axis;  gate(z) = z * softmax(W z)            (3, 2306.09364)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from runnel import patterns
from runnel.blocks import mlp
from runnel.lineage import Lineage
from runnel.links import EMBEDDING
from runnel.mixer import Mixer, RMSNorm, linear
from runnel.model import Layer, layers_of, through
from runnel.state import Memory
from runnel.windows.model import WindowModel
from runnel.windows.window import Window, WindowShape


class WholeAttention(nn.Module):
    """Equation (1): every token sees every token, of its own sequence or of another one."""

    def __init__(self, d_model: int, heads: int) -> None:
        super().__init__()
        check_heads(d_model, heads)
        self.heads = heads
        self.q, self.k, self.v, self.out = (linear(d_model, d_model, bias=True) for _ in range(4))

    def forward(self, x: Float[Tensor, "B T D"], other: Float[Tensor, "B S D"] | None = None) -> Float[Tensor, "B T D"]:
        other = x if other is None else other
        q, k, v = (split_heads(part, self.heads) for part in (self.q(x), self.k(other), self.v(other)))
        return self.out(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))

    def reference(self, x: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
        """Equation (1) for one sequence, query by query and head by head."""
        q, k, v = self.q(x), self.k(x), self.v(x)
        width, rows = x.shape[1] // self.heads, []
        for t in range(len(x)):
            parts = []
            for at in range(0, x.shape[1], width):
                head = slice(at, at + width)
                scores = torch.stack([q[t, head] @ k[j, head] for j in range(len(x))]) / width**0.5
                parts.append(sum(p * v[j, head] for j, p in enumerate(scores.softmax(0))))
            rows.append(torch.cat(parts))
        return self.out(torch.stack(rows))


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of every feature over all tokens of all rows."""

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return super().forward(x.flatten(0, 1)).view_as(x)


class EncoderLayer(nn.Module):
    """Equation (2). mix: tokens to tokens of the same shape."""

    def __init__(
        self,
        mix: nn.Module,
        d_model: int,
        hidden: int,
        dropout: float,
        activation: str = "gelu",
        norm: Callable[[int], nn.Module] = nn.LayerNorm,
    ) -> None:
        super().__init__()
        self.mix, self.mix_norm, self.mlp_norm = mix, norm(d_model), norm(d_model)
        self.mlp = mlp.MLP(d_model, mlp.Config(hidden=hidden, activation=activation))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        x = self.mix_norm(x + self.dropout(self.mix(x)))
        return self.mlp_norm(x + self.dropout(self.mlp(x)))


class VariateEncoder(WindowModel):
    """Layers over variates, each of them one token that holds its whole history; every token is its own forecast.

    mix: makes what a layer mixes the tokens with.
    """

    def __init__(
        self, shape: WindowShape, width: int, hidden: int, layers: int, dropout: float, mix: Callable[[], nn.Module]
    ) -> None:
        super().__init__(shape)
        self.embed = linear(shape.history, width, bias=True)
        self.layers = nn.Sequential(*(EncoderLayer(mix(), width, hidden, dropout) for _ in range(layers)))
        self.norm_out = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.out = linear(width, shape.horizon * shape.outputs, bias=True)

    def forward(self, window: Window) -> Float[Tensor, "B H C K"]:
        tokens = self.dropout(self.embed(variates(window)))
        hidden = self.norm_out(self.layers(tokens))[:, : window.history.shape[2]]
        return self.out(hidden).unflatten(-1, (self.shape.horizon, self.shape.outputs)).transpose(1, 2)


class RowConv(nn.Module):
    """What each row and the rows beside it (the ends being neighbours of each other) add up to, plus covariates."""

    def __init__(self, channels: int, covariates: int, d_model: int) -> None:
        super().__init__()
        self.rows = nn.Conv1d(channels, d_model, 3, padding=1, padding_mode="circular", bias=False)
        self.beside = linear(covariates, d_model) if covariates else None

    def forward(self, rows: Float[Tensor, "B T C"], covariates: Float[Tensor, "B T F"] | None = None) -> Tensor:
        x = self.rows(rows.transpose(1, 2)).transpose(1, 2)
        if self.beside is None:
            return x
        assert covariates is not None, "a model made for covariates is given them"
        return x + self.beside(covariates)


class BothWays(nn.Module):
    """Two of Runnel's mixers over the same tokens, one in each order; their outputs are added."""

    def __init__(self, make: Callable[[], Mixer]) -> None:
        super().__init__()
        self.there, self.back = make(), make()

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return run(self.there, x) + run(self.back, x.flip(1)).flip(1)


@dataclass(frozen=True, eq=False)
class Carried:
    """What a trunk knows of the tokens before: a memory a layer, and how many there were."""

    memories: tuple[Memory, ...]
    seen: int


class Trunk(nn.Module):
    """Layers of Runnel's mixers over vectors that come bit by bit; the state is passed in and returned."""

    def __init__(self, layers: Iterable[Layer], norm: nn.Module) -> None:
        super().__init__()
        self.layers, self.norm = nn.ModuleList(layers), norm

    @classmethod
    def of(cls, pattern: str, channel: str | None, d_model: int) -> Trunk:
        """Fresh layers of a pattern."""
        return cls(layers_of(patterns.parse(pattern, channel), d_model), RMSNorm(d_model))

    def forward(
        self, x: Float[Tensor, "B T D"], before: Carried | None = None
    ) -> tuple[Float[Tensor, "B T D"], Carried]:
        if before is None:
            before = Carried(tuple(layer.mixer.init_state(x.shape[0]) for layer in self._all()), 0)
        start = torch.full((x.shape[0],), before.seen, device=x.device)
        lineage = Lineage.sequence(x.shape[0], x.shape[1], x.device).at(start)
        x, after, _ = through(self._all(), x, before.memories, lineage, {EMBEDDING: x})
        return self.norm(x), Carried(after, before.seen + x.shape[1])

    def _all(self) -> list[Layer]:
        return list(self.layers)  # type: ignore[arg-type]


class GatedMixer(nn.Module):
    """Equation (3) along the axis `axis` of `width` entries; the norm is over the last axis, of `features` entries."""

    def __init__(self, axis: int, width: int, features: int, expand: int, dropout: float, gated: bool = True) -> None:
        super().__init__()
        self.axis = axis
        self.norm = nn.LayerNorm(features)
        self.up, self.down = linear(width, expand * width, bias=True), linear(expand * width, width, bias=True)
        self.gate = linear(width, width, bias=True) if gated else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        z = self.norm(x).transpose(self.axis, -1)
        z = self.dropout(self.down(self.dropout(gelu(self.up(z)))))
        if self.gate is not None:
            z = z * self.gate(z).softmax(-1)
        return x + z.transpose(self.axis, -1)


def run(mixer: Mixer, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
    """One of Runnel's mixers over fresh rows."""
    return mixer(x, mixer.init_state(x.shape[0]), Lineage.sequence(x.shape[0], x.shape[1], x.device))[0]


def variates(window: Window) -> Float[Tensor, "B V L"]:
    """The history of every channel, then of every covariate that has one."""
    length = window.history.shape[1]
    parts = [window.history, window.past, None if window.future is None else window.future[:, :length]]
    return torch.cat([part for part in parts if part is not None], dim=-1).transpose(1, 2)


def sinusoids(length: int, width: int) -> Float[Tensor, "T D"]:
    """Places as sines and cosines of falling rates (1706.03762, section 3.5)."""
    rates = 10_000.0 ** (-torch.arange(0, width, 2) / width)
    angle = torch.arange(length)[:, None] * rates
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :width]


def split_heads(x: Float[Tensor, "B T D"], heads: int) -> Float[Tensor, "B H T K"]:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def patched(x: Float[Tensor, "*B L"], patch: int, stride: int) -> Float[Tensor, "*B N P"]:
    """Patches that end with the newest row; the oldest is repeated in front where the first patch lacks rows."""
    length = x.shape[-1]
    lacking = patch - length if length < patch else -(length - patch) % stride
    return torch.cat([x[..., :1].expand(*x.shape[:-1], lacking), x], dim=-1).unfold(-1, patch, stride)


def patch_count(length: int, patch: int, stride: int) -> int:
    """How many patches `patched` gives."""
    return 1 + max(0, -(-(length - patch) // stride))


def check_heads(d_model: int, heads: int) -> None:
    """ValueError unless heads divide the width."""
    if heads < 1 or d_model % heads:
        raise ValueError(f"heads must divide d_model; got {heads} heads, d_model {d_model}")


def check_positive(page: str, config: object, *names: str) -> None:
    """ValueError unless these fields of a page's Config are at least 1."""
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"{name} of {page} must be at least 1; got {getattr(config, name)}")


def check_dropout(page: str, dropout: float) -> None:
    """ValueError unless it is a share below 1."""
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout of {page} must be in [0, 1); got {dropout}")
