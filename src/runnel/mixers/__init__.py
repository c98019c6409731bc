"""Token mixers, one a file; file name = name in patterns. Here is what several of their pages share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize, rms_norm, silu, softplus

from runnel import catalog
from runnel.lineage import Lineage
from runnel.mixer import Mixer, RMSNorm, grouped_heads, linear, log_uniform_inverse_softplus, parameter
from runnel.ops import conv
from runnel.ops.rope import check_rotated, rope, scaling
from runnel.state import Memory


def slopes(heads: int, like: Tensor) -> Float[Tensor, "H"]:
    """2^(-8 h / H) for h = 1..H, as in ALiBi (2021, arXiv:2108.12409): rates of forgetting, from fast to slow."""
    return 2 ** (-8 * torch.arange(1, heads + 1, dtype=like.dtype, device=like.device) / heads)


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Options of attention that say what its weights are; see `mixers/attention`."""

    heads: int | None = None
    head_dim: int | None = None
    kv_heads: int | None = None
    rope_base: float = 10_000.0
    rope: dict[str, Any] | None = None
    rotated: int | None = None
    qk_norm: bool = False
    norm_eps: float = 1e-6
    norm_offset: float = 0.0
    bias: bool = False
    out_bias: bool = False


class AttentionWeights(Mixer):
    """A mixer with the weights of attention under attention's names, so that a layer of the one can be read as one of
    the other. The page adds what it has of its own, then `out`.
    """

    def __init__(self, d_model: int, config: AttentionConfig) -> None:
        super().__init__()
        page = catalog.page_name(self)
        heads, groups, width = grouped_heads(page, d_model, config.heads, config.head_dim, config.kv_heads)
        self.heads, self.groups, self.width = heads, groups, width
        check_rotated(config.rotated, width)
        self.rope_base, self.rotated = config.rope_base, config.rotated
        self.scaling = None if config.rope is None else scaling(config.rope)
        self.qkv = linear(d_model, (heads + 2 * groups) * width, config.bias)
        norm = (width, config.norm_eps, config.norm_offset)
        self.q_norm = RMSNorm(*norm) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(*norm) if config.qk_norm else nn.Identity()

    def _heads_of(
        self, x: Float[Tensor, "B T D"]
    ) -> tuple[Float[Tensor, "B T H K"], Float[Tensor, "B T G K"], Float[Tensor, "B T G K"]]:
        """q, k and v, not yet rotated."""
        sizes = (self.heads, self.groups, self.groups)
        q, k, v = self.qkv(x).unflatten(-1, (-1, self.width)).split(sizes, dim=-2)
        return self.q_norm(q), self.k_norm(k), v

    def _rotated(self, y: Float[Tensor, "B T H K"], positions: Tensor) -> Float[Tensor, "B T H K"]:
        return rope(y, positions, self.rope_base, self.scaling, self.rotated)

    def _for_all(self, y: Float[Tensor, "B T G K"]) -> Float[Tensor, "B T H K"]:
        """What a group shares, once for every head of it."""
        return y.repeat_interleave(self.heads // self.groups, dim=-2)


class DeltaHeads(nn.Module):
    """What the delta rules take from the input: q, k, v = silu(conv(W x)) by head, q and k of unit length.

    writes: keys and values of a token, side by side on the axis of heads. q is scaled by K^-1/2. eps: added to squared
    lengths; 0 for the exact length.
    """

    def __init__(
        self,
        d_model: int,
        heads: int,
        key_width: int,
        value_width: int,
        conv_width: int,
        writes: int = 1,
        eps: float = 0.0,
    ) -> None:
        super().__init__()
        self.eps = eps
        self.widths = (key_width, key_width, value_width)
        self.sizes = [heads * key_width, writes * heads * key_width, writes * heads * value_width]
        self.project = linear(d_model, sum(self.sizes))
        self.conv_weight = parameter(conv.initial_filters(sum(self.sizes), conv_width))

    @property
    def tail_shape(self) -> tuple[int, int]:
        """That of the state of a row: the last inputs of the convolution."""
        channels, width = self.conv_weight.shape
        return width - 1, channels

    def forward(
        self, x: Float[Tensor, "B T D"], tail: Float[Tensor, "B W-1 C"], lineage: Lineage
    ) -> tuple[Float[Tensor, "B T H K"], Float[Tensor, "B T nH K"], Float[Tensor, "B T nH V"], Memory]:
        mixed, tail = conv.causal_conv_silu(self.project(x), self.conv_weight, None, tail, lineage)
        return *self._split(mixed), tail

    def reference(
        self, x: Float[Tensor, "B T D"]
    ) -> tuple[Float[Tensor, "B T H K"], Float[Tensor, "B T nH K"], Float[Tensor, "B T nH V"]]:
        """The same over fresh rows, by the convolution's loop."""
        tail = x.new_zeros(x.shape[0], *self.tail_shape)
        return self._split(silu(conv.reference(self.project(x), self.conv_weight, None, tail)[0]))

    def _split(self, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts = zip(mixed.split(self.sizes, dim=-1), self.widths, strict=True)
        q, k, v = [part.unflatten(-1, (-1, width)) for part, width in parts]
        return self._unit(q) * self.widths[0] ** -0.5, self._unit(k), v

    def _unit(self, x: Tensor) -> Tensor:
        return x * (x.square().sum(-1, keepdim=True) + self.eps).rsqrt() if self.eps else normalize(x, dim=-1)


def check_beta_max(page: str, beta_max: float) -> None:
    """Above 2 a step of the delta rule would make its memory grow. ValueError."""
    if not 0 < beta_max <= 2:
        raise ValueError(f"{page} needs 0 < beta_max <= 2; got {beta_max}")


class ChannelDecay(nn.Module):
    """How much every key channel keeps: log a = -exp(log_a) softplus(W_up W_down x + b), log_a one number per head."""

    def __init__(self, d_model: int, heads: int, width: int, rank: int) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.map = nn.Sequential(linear(d_model, rank), linear(rank, heads * width))
        self.bias = parameter(log_uniform_inverse_softplus(heads * width, 1e-3, 1e-1))
        self.log_a = parameter(torch.empty(heads, 1).uniform_(1, 16).log())

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T H K"]:
        rate = softplus(self.map(x) + self.bias).unflatten(-1, (self.heads, self.width))
        return -self.log_a.exp() * rate


class DeltaState(NamedTuple):
    tail: Tensor  # (B, W-1, C), the last inputs of the convolution
    memory: Tensor  # (B, H, K, V)


class DeltaMixer(Mixer):
    """A mixer of `DeltaHeads` that keeps a square matrix for every head."""

    inputs: DeltaHeads
    heads: int
    width: int

    def init_state(self, batch_size: int) -> DeltaState:
        tail = self.zeros(batch_size, *self.inputs.tail_shape)
        return DeltaState(tail, self.zeros(batch_size, self.heads, self.width, self.width))


class GatedNorm(RMSNorm):
    """The norm of an output under its gate: RMSNorm(y * gate), or RMSNorm(y) * gate when the gate comes after.

    groups: the mean square is taken over so many parts of the channels.
    """

    def __init__(self, width: int, eps: float, groups: int = 1, gate_first: bool = True) -> None:
        super().__init__(width, eps)
        self.groups, self.gate_first = groups, gate_first

    def forward(self, y: Float[Tensor, "*B D"], gate: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:  # type: ignore[override]
        return self._normed(y * gate) if self.gate_first else self._normed(y) * gate.to(self.weight.dtype)

    def _normed(self, y: Tensor) -> Tensor:
        if self.groups == 1:
            return super().forward(y)
        split = rms_norm(y.unflatten(-1, (self.groups, -1)), (y.shape[-1] // self.groups,), eps=self.eps)
        return split.flatten(-2).to(self.weight.dtype) * self.weight
