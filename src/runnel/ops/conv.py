"""Causal depthwise convolution: y_t = sum over w of weight_w times x at the w-th ancestor of t.

The state is the last W-1 inputs.
On a tree, in a packed or in a padded row it reads ancestors, not neighbours.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import silu

from runnel import native
from runnel.lineage import Lineage
from runnel.native import scans
from runnel.ops.precision import full_precision
from runnel.ops.recording import primitive
from runnel.state import Memory, Pending


def initial_filters(channels: int, width: int) -> Float[Tensor, "{channels} {width}"]:
    """Uniform in +-1/sqrt(width), PyTorch's default for a depthwise convolution."""
    return (torch.rand(channels, width) * 2 - 1) * width**-0.5


def reference(
    x: Float[Tensor, "B T D"],
    weight: Float[Tensor, "D W"],
    bias: Float[Tensor, "D"] | None,
    tail: Float[Tensor, "B W-1 D"],
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B W-1 D"]]:
    """The literal loop over an ordinary sequence; arguments as in `causal_conv`."""
    seen = torch.cat([tail, x], dim=1)
    width = weight.shape[-1]
    outputs = []
    for t in range(x.shape[1]):
        terms = [weight[:, width - 1 - w] * seen[:, t + width - 1 - w] for w in range(width)]
        y = torch.stack(terms).sum(0)
        outputs.append(y if bias is None else y + bias)
    return torch.stack(outputs, dim=1), seen[:, seen.shape[1] - (width - 1) :]


@primitive
@full_precision
def causal_conv(
    x: Float[Tensor, "B T D"],
    weight: Float[Tensor, "D W"],
    bias: Float[Tensor, "D"] | None,
    tail: Float[Tensor, "B W-1 D"],
    lineage: Lineage,
) -> tuple[Float[Tensor, "B T D"], Memory]:
    """The last column of `weight` is for the token itself; `tail` is oldest first.

    Returns the outputs and the new tail (pending after a tree).
    """
    if _runs_natively(x, weight, bias, tail, lineage):
        return _in_cpp(x, weight, bias, tail, lineage, silu=False)
    taps, tail = ancestors_of(x, weight.shape[-1], tail, lineage)
    y = taps[0] * weight[:, -1] if bias is None else torch.addcmul(bias, taps[0], weight[:, -1])
    for w in range(1, len(taps)):
        y = torch.addcmul(y, taps[w], weight[:, -1 - w])
    return y, tail


def causal_conv_silu(
    x: Float[Tensor, "B T D"],
    weight: Float[Tensor, "D W"],
    bias: Float[Tensor, "D"] | None,
    tail: Float[Tensor, "B W-1 D"],
    lineage: Lineage,
) -> tuple[Float[Tensor, "B T D"], Memory]:
    """silu of `causal_conv`, in one pass where that runs in C++."""
    if _runs_natively(x, weight, bias, tail, lineage):
        return _in_cpp(x, weight, bias, tail, lineage, silu=True)
    y, after = causal_conv(x, weight, bias, tail, lineage)
    return silu(y), after


@primitive
@full_precision
def shift(
    x: Float[Tensor, "B T D"], tail: Float[Tensor, "B 1 D"], lineage: Lineage
) -> tuple[Float[Tensor, "B T D"], Memory]:
    """The parent's input for every token, and the new tail (pending after a tree)."""
    taps, tail = ancestors_of(x, 2, tail, lineage)
    return taps[1], tail


def ancestors_of(x: Tensor, width: int, tail: Tensor, lineage: Lineage) -> tuple[list[Tensor], Memory]:
    """x at every token, its parent, its grandparent, ... (`width` tensors (B, T, D)), and the new tail."""
    if lineage.part is not None:
        tail, last = entering(x, tail, lineage)
        return ancestors_of(x, width, tail, replace(lineage, part=None))[0], last
    length = x.shape[1]
    seen = torch.cat([tail, x], dim=1)
    if lineage.chain is not None and lineage.chain.is_plain:
        taps = [seen[:, width - 1 - w : width - 1 - w + length] for w in range(width)]
        return taps, _pending(tail, x) if lineage.is_tree else seen[:, length:]
    taps = [x]
    if width > 1:
        seen = torch.cat([seen, torch.zeros_like(x[:, :1])], dim=1)
        index = lineage.taps(width)
        taps += [_take(seen, index[..., w]) for w in range(1, width)]
    if lineage.is_tree:
        return taps, _pending(tail, x)
    return taps, tail if width == 1 else _take(seen, lineage.last_taps(width))


def _pending(tail: Tensor, x: Tensor) -> Pending:
    """A tail of nothing has no order to keep."""
    return Pending(_advance, tail, (x,), _empty if tail.shape[1] == 0 else None)


def _empty(tail: Tensor, lineage: Lineage, x: Tensor) -> Tensor:
    return tail


def _runs_natively(x: Tensor, weight: Tensor, bias: Tensor | None, tail: Tensor, lineage: Lineage) -> bool:
    long_enough, narrow_enough = lineage.length > 1, weight.shape[-1] <= scans.MOST_TAPS
    return long_enough and narrow_enough and not lineage.is_tree and native.runs(x, weight, bias, tail)


def _in_cpp(
    x: Tensor, weight: Tensor, bias: Tensor | None, tail: Tensor, lineage: Lineage, silu: bool
) -> tuple[Tensor, Tensor]:
    if lineage.part is not None:
        tail, last = entering(x, tail, lineage)
        return _in_cpp(x, weight, bias, tail, replace(lineage, part=None), silu)[0], last
    width = weight.shape[-1]
    taps = None if lineage.is_plain or width == 1 else lineage.taps(width)
    return scans.causal_conv(x, weight, bias, tail, taps, silu), tail_after(x, tail, lineage)


def entering(x: Tensor, tail: Tensor, lineage: Lineage) -> tuple[Tensor, Tensor]:
    """The tail before a slice, and the one after the last slice. Slices tell each other their newest inputs."""
    part, width = lineage.part, tail.shape[1] + 1
    assert part is not None
    alone = replace(lineage, part=None)
    newest = tail_after(x, torch.zeros_like(tail), alone)
    own = tail_after(torch.ones_like(x[..., :1]), torch.zeros_like(tail[..., :1]), alone)
    known = own[..., 0] > 0 if lineage.reset is None else (own[..., 0] > 0) | lineage.reset.any(1, keepdim=True)

    def after(tail: Tensor, newest: Tensor, known: Tensor) -> Tensor:
        return tail_after(newest, tail, Lineage.padded(known > 0))

    return part.exchange.states(after, tail, newest, known.to(x.dtype)) if width > 1 else (tail, tail)


def tail_after(x: Tensor, tail: Tensor, lineage: Lineage) -> Tensor:
    """The last inputs of a chain, as many as the tail before it has."""
    width = tail.shape[1] + 1
    if width == 1:
        return tail
    if lineage.is_plain:
        newest = torch.cat([tail, x[:, 1 - width :]], dim=1)
        return newest[:, newest.shape[1] - (width - 1) :]
    seen = torch.cat([tail, x, torch.zeros_like(x[:, :1])], dim=1)
    return _take(seen, lineage.last_taps(width))


def _advance(tail: Tensor, lineage: Lineage, x: Tensor) -> Tensor:
    return ancestors_of(x, tail.shape[1] + 1, tail, lineage)[1]


def _take(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
