"""Rows longer than memory: exact gradients from one chunk of time at a time.

A first pass reads the row without gradients and keeps the state before every chunk. A second goes from the last chunk
to the first: it reads the chunk again, with gradients, and sends what it learns about the state before it on to the
chunk that made that state. So nothing is truncated, every token is read twice, and what is held at once is the
activations and the logits of one chunk, and one state for each chunk.

    s_{i+1} = f(s_i, x_i),   loss = sum over i of l(s_i, x_i)
    g_i = d l / d s_i + (d f / d s_i)^T g_{i+1},   g after the last chunk = 0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from runnel.lineage import Lineage
from runnel.model import Model
from runnel.state import State, leaves, map_memory
from runnel.types import Batch


@dataclass(frozen=True)
class Chunk:
    """Columns of a batch, the state before them and PyTorch's generator there (dropout must fall the same twice)."""

    inputs: Tensor
    targets: Tensor
    lineage: Lineage
    state: State
    generator: Tensor


def backward(model: Model, batch: Batch, size: int, weight: float) -> float:
    """Add the gradient of `weight` times the summed nats of a batch to the model's; returns the weighted nats.

    size: tokens of a row that are held at once.
    """
    chunks = _read(model, batch, size)
    total = 0.0
    wanted: Sequence[Tensor | None] = [None] * len(leaves(chunks[-1].state.layers))
    while chunks:
        nats, wanted = _learn(model, chunks.pop(), wanted, weight)
        total += nats
    return total


@torch.no_grad()
def _read(model: Model, batch: Batch, size: int) -> list[Chunk]:
    """Every chunk with the state before it."""
    rows, length = batch.inputs.shape[:2]
    whole = batch.lineage or Lineage.sequence(rows, length, batch.inputs.device)
    state, chunks = model.init_state(rows), []
    for begin in range(0, length, size):
        columns = slice(begin, min(begin + size, length))
        lineage = whole.columns(columns.start, columns.stop)
        inputs, targets = batch.inputs[:, columns], batch.targets[:, columns]
        chunks.append(Chunk(inputs, targets, lineage, state, torch.get_rng_state()))
        if columns.stop < length:
            _, state = model.features(inputs, state, lineage)
    return chunks


def _learn(
    model: Model, chunk: Chunk, wanted: Sequence[Tensor | None], weight: float
) -> tuple[float, list[Tensor | None]]:
    """The weighted nats of a chunk, and the gradient of its first state. wanted: that of the state after it."""
    torch.set_rng_state(chunk.generator)
    layers = map_memory(lambda x: x.detach().requires_grad_(x.is_floating_point()), chunk.state.layers)
    parameters, after = model(chunk.inputs, replace(chunk.state, layers=layers), chunk.lineage)
    nats = -weight * model.head.log_prob(parameters, chunk.targets).sum()
    ends = [(x, g) for x, g in zip(leaves(after.layers), wanted, strict=True) if g is not None and x.requires_grad]
    torch.autograd.backward([nats, *[x for x, _ in ends]], [None, *[g for _, g in ends]])
    return float(nats.detach()), [x.grad for x in leaves(layers)]
