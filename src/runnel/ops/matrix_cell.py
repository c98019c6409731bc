"""The matrix cell of xLSTM: a matrix memory with exponential input gates, and the vector that normalises what is read.

    m_t = max(log f_t + m_p, i_t),   i' = exp(i_t - m_t),   f' = exp(log f_t + m_p - m_t)
    C_t = f' C_p + i' v_t k_t^T,   n_t = f' n_p + i' k_t
    h_t = C_t q_t / max(|n_t . q_t|, exp(-m_t))

(xLSTM: Extended Long Short-Term Memory, 2024, arXiv:2405.04517, eq. 15-21.) m, the unit of the weights, cancels out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from runnel.lineage import Lineage
from runnel.ops.outer import outer_scan
from runnel.ops.stable import Level, weigh
from runnel.state import Memory

LARGEST = 80.0
"""Nats up to which exp(-m) is taken: beyond it the output is zero in float32 anyway."""


class Cell(NamedTuple):
    """level: m, and the sum of all weights relative to it, which tells an empty cell (zero)."""

    level: Level  # both (B, H)
    memory: Tensor  # (B, H, K, V+1): C transposed, and n as one more value column, of ones


class Tokens(NamedTuple):
    """What the cell is given of every token. log_f <= 0."""

    q: Float[Tensor, "B T H K"]
    k: Float[Tensor, "B T H K"]
    v: Float[Tensor, "B T H V"]
    i: Float[Tensor, "B T H"]
    log_f: Float[Tensor, "B T H"]


def reference(tokens: Tokens) -> Float[Tensor, "B T H V"]:
    """The literal loop over fresh rows."""
    q, k, v, i, log_f = tokens
    c, n, m, outputs = q.new_zeros(()), q.new_zeros(()), None, []
    for t in range(q.shape[1]):
        new_m = i[:, t] if m is None else torch.maximum(log_f[:, t] + m, i[:, t])
        keep = torch.zeros_like(new_m) if m is None else (log_f[:, t] + m - new_m).exp()
        write, m = (i[:, t] - new_m).exp(), new_m
        c = keep[..., None, None] * c + (write[..., None] * v[:, t])[..., None] * k[:, t, :, None, :]
        n = keep[..., None] * n + write[..., None] * k[:, t]
        normaliser = torch.maximum((n * q[:, t]).sum(-1).abs(), (-m).exp())
        outputs.append((c * q[:, t, :, None, :]).sum(-1) / normaliser[..., None])
    return torch.stack(outputs, dim=1)


def matrix_cell(tokens: Tokens, cell: Cell, lineage: Lineage) -> tuple[Float[Tensor, "B T H V"], Memory]:
    """h along the lineage, and the cell after it (pending after a tree)."""
    q, k, v, i, log_f = tokens
    gate, level = weigh(i, log_f, cell.level, lineage)
    values = pad(v, (0, 1), value=1.0)
    y, memory = outer_scan(q, gate.write[..., None] * k, values, gate.log_keep, cell.memory, lineage)
    floor = (-gate.maximum).clamp(max=LARGEST).exp()[..., None]
    return y[..., :-1] / torch.maximum(y[..., -1:].abs(), floor), Cell(level, memory)
