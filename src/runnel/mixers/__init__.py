"""Token mixers, one a file; file name = name in patterns. Here is what several of their pages share."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize, rms_norm, silu

from runnel.lineage import Lineage
from runnel.mixer import RMSNorm, linear, parameter
from runnel.ops import conv
from runnel.state import Memory


def slopes(heads: int, like: Tensor) -> Float[Tensor, "H"]:
    """2^(-8 h / H) for h = 1..H, as in ALiBi (2021, arXiv:2108.12409): rates of forgetting, from fast to slow."""
    return 2 ** (-8 * torch.arange(1, heads + 1, dtype=like.dtype, device=like.device) / heads)


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
