"""What it takes to send weights and gradients, measured by the model itself on few tokens, cut by FSDP2 and whole.

What FSDP2 adds to a step are calls, copies in and out, hooks, and waits for the slowest process; not all of it is bytes
over a link, but it is the same whatever the length of rows, so that few tokens show it best.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from runnel.links import share_weights
from runnel.objectives import next_token
from runnel.plans import Sending
from runnel.plans._calibration import timed
from runnel.train import Ranks, sharding
from runnel.types import Batch

if TYPE_CHECKING:
    from runnel.model import Model

TOKENS, ROUNDS = 16, 9


def measured(build: Callable[[], Model], ranks: Ranks) -> Sending:
    """Seconds a byte, of the rank that takes most. All ranks must ask."""
    if ranks.devices is None:
        return Sending()
    whole, cut = build(), build()
    size = sum(p.numel() * p.element_size() for p in whole.parameters()) * (ranks.mesh.size - 1) / ranks.mesh.size
    tokens = torch.zeros(ranks.mesh.size, TOKENS, dtype=torch.long, device=whole.device)
    share = ranks.own(Batch(tokens, tokens)).batch
    if share_weights(cut.layers):  # never cut
        return Sending(add=_usual([_step(whole, share, ranks)[2] for _ in range(ROUNDS)], ranks) / (2 * size))
    sharding.shard(cut, ranks.devices)
    steps = [(_step(whole, share, ranks), _step(cut, share, ranks)) for _ in range(ROUNDS)]  # in turn
    forward, backward = [_usual([b[part] - a[part] for a, b in steps], ranks) for part in (0, 1)]
    add = _usual([a[2] for a, _ in steps], ranks)
    return Sending(max(0.0, forward / size), max(0.0, (backward - forward) / size), add / (2 * size))


def _step(model: Model, share: Batch, ranks: Ranks) -> tuple[float, float, float]:
    """Seconds of forward, backward, and summing the gradients."""
    losses: list[torch.Tensor] = []
    parts: tuple[Callable[[], Any], ...] = (
        lambda: losses.append(next_token.loss(model, share)),
        lambda: losses[0].backward(),
        lambda: ranks.sum_gradients(model),
    )
    model.zero_grad()
    found = []
    for part in parts:
        ranks.wait()
        found.append(timed(part, model.device.type))
    return found[0], found[1], found[2]


def _usual(times: list[float], ranks: Ranks) -> float:
    return ranks.largest(median(times[1:]))
