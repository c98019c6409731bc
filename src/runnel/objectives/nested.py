"""Sorted training: all sub-models of a nested network learn the next token, and count alike.

Paper: "S2D: Sorted Speculative Decoding For More Efficient Deployment of Nested Large Language Models" (2024,
2407.01955), section 3.1, after "Sorted LLaMA" (2023, 2309.08968).

    loss = (1 / N) sum over n of L_n,  L_n = -mean of log softmax(f_n(x_1..x_t))(x_{t+1})           (1)

The target has no part in it. With one exit it is plain next-token training.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from runnel.lineage import Lineage
from runnel.ops.precision import widen
from runnel.trained.staged import Staged
from runnel.types import IGNORE, Batch

PAPERS = {
    "S2D: Sorted Speculative Decoding For More Efficient Deployment of Nested Large Language Models": "2407.01955"
}


def loss(drafter: Staged, batch: Batch) -> Float[Tensor, ""]:
    """Nats per token, a mean over the exits. ValueError when every target of the batch is IGNORE."""
    if batch.n_targets == 0:
        raise ValueError(f"batch must hold at least one target; all {batch.targets.numel()} are IGNORE")
    lineage = None if batch.segments is None else Lineage.packed(batch.segments)
    exits = drafter.exits(batch.inputs, lineage)
    targets = batch.targets.flatten()
    losses = [cross_entropy(widen(logits.flatten(0, 1)), targets, ignore_index=IGNORE) for logits in exits]
    return torch.stack(losses).mean()  # eq. (1)
