"""Implicit attention: the (T, T) map by which any mixer makes its outputs of the tokens before.

Most mixers carry their values through one primitive that is linear in them: softmax attention, sums of outer products
with decay, delta rules, selective and diagonal scans. With queries, keys, gates and decays as x makes them,

    o_t = sum over j <= t of A_tj v_j,   A (T, T) for every head, or for every channel of a vector state         (1)

A is found by sending impulses: column j is the output for values that are one at j and zero elsewhere, everything else
as it was. It is therefore exact for every such primitive, without a formula of its own, and (1) is a check of it. The
idea that gated linear recurrences are implicit attention: A Unified Implicit Attention Formulation for Gated-Linear
Recurrent Sequence Models (2024, 2405.16504). Its matrices also hold the convolution before and the norm and gate after
the primitive; here A is the primitive alone.

Where there is no such primitive (nonlinear cells, learners, memories), the map is how strongly outputs move:

    A_tj = || d y_t / d x_j ||, the Frobenius norm of a (D, D) block of the Jacobian                             (2)
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from runnel.lineage import Lineage
from runnel.links import Links, call
from runnel.mixer import Mixer
from runnel.ops.recording import unwatched, watched
from runnel.state import map_memory, take_memory

VALUES = {
    "attend": "v",
    "delta_scan": "v",
    "diagonal_scan": "b",
    "dplr_scan": "v",
    "outer_scan": "v",
    "selective_scan": "x",
}
"""Primitives of which (1) holds, and what they call their values."""
SHARED = {"selective_scan": ("a",)}
"""Arguments that are no tokens' and no rows'."""


class TokenMap(NamedTuple):
    """weights: A, with t before j. values (B, T, H, V), outputs (B, T, H, V): of the primitive in (1), None for (2).

    H is 1 for (2), and the number of channels where every channel has a map of its own (V is then 1).
    """

    weights: Inexact[Tensor, "B H T T"]
    primitive: str | None
    values: Inexact[Tensor, "B T H V"] | None
    outputs: Inexact[Tensor, "B T H V"] | None


@torch.no_grad()
def implicit_attention(mixer: Mixer, x: Float[Tensor, "B T D"], links: Links | None = None) -> TokenMap:
    """By (1) for the last linear primitive that the mixer calls, by (2) when it calls none; in float64, fresh rows.

    links: those that the mixer takes of layers before its own.
    """
    calls: list[tuple[str, Callable[..., Any], dict[str, Any], Tensor]] = []

    def watch(name: str, call: Any, arguments: dict[str, Any]) -> Any:
        with unwatched():
            found = call()
        if name in VALUES:
            calls.append((name, call.func, arguments, found[0]))
        return found

    mixer, x, links = _double(mixer, x, links)
    with watched(watch):
        _run(mixer, x, links)
    if not calls:
        return TokenMap(influence(mixer, x, links)[:, None], None, None, None)
    return _by_impulses(*calls[-1])


def influence(mixer: Mixer, x: Float[Tensor, "B T D"], links: Links | None = None) -> Float[Tensor, "B T T"]:
    """(2), by a backward pass for every output of a row: T D of them. Links stay as they are."""
    mixer, x, links = _double(mixer, x, links)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        y = _run(mixer, x, links)
        squares = x.new_zeros(x.shape[0], x.shape[1], x.shape[1])
        for t in range(y.shape[1]):
            for channel in range(y.shape[2]):
                (gradient,) = torch.autograd.grad(y[:, t, channel].sum(), x, retain_graph=True)
                squares[:, t] += gradient.pow(2).sum(-1)
    return squares.sqrt()


def _by_impulses(name: str, function: Callable[..., Any], arguments: dict[str, Any], outputs: Tensor) -> TokenMap:
    values = arguments[VALUES[name]]
    batch_size, length = values.shape[:2]
    rows = torch.arange(batch_size).repeat_interleave(length)
    asked = {key: _repeated(part, rows) if key not in SHARED.get(name, ()) else part for key, part in arguments.items()}
    impulses = torch.eye(length, dtype=values.dtype).repeat(batch_size, 1)
    asked[VALUES[name]] = impulses.reshape(-1, length, *(1,) * (values.ndim - 2)).expand(-1, -1, *values.shape[2:])
    asked["lineage"] = Lineage.sequence(len(rows), length)
    with unwatched():
        columns, _ = function(*asked.values())
    values, outputs, columns = _heads(name, values), _heads(name, outputs), _heads(name, columns)
    weights = columns[..., 0].unflatten(0, (batch_size, length)).permute(0, 3, 2, 1)  # (B, j, t, H) to (B, H, t, j)
    groups = outputs.shape[2] // values.shape[2]
    return TokenMap(weights, name, values.repeat_interleave(groups, dim=2), outputs)


def _heads(name: str, tensor: Tensor) -> Tensor:
    """(N, T, H, V): what has no heads of many values has a head for every channel."""
    return tensor.flatten(2)[..., None] if name in ("diagonal_scan", "selective_scan") else tensor


def _repeated(part: Any, rows: Tensor) -> Any:
    return take_memory(part, rows) if isinstance(part, (Tensor, tuple)) else part


def _double(mixer: Mixer, x: Tensor, links: Links | None) -> tuple[Mixer, Tensor, Links]:
    wide = {name: map_memory(_wide, value) for name, value in (links or {}).items()}
    return copy.deepcopy(mixer).double(), x.double(), wide


def _wide(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value


def _run(mixer: Mixer, x: Tensor, links: Links) -> Tensor:
    return call(mixer, x, mixer.init_state(x.shape[0]), Lineage.sequence(*x.shape[:2]), links)[0]
