"""Next-token prediction without the logits of a whole batch: `next_token` for large vocabularies.

    loss = -(1 / n) sum over chunks c of sum over (b, t) in c of log p(targets[b, t] | inputs[b, : t + 1])      (1)

The positions that have a target are taken in chunks of at most `AT_ONCE` logits. The logits of a chunk are made, used
and dropped; the backward pass makes them again. So (B, T, V) never exists, and positions without a target cost nothing.
One more product with the head's matrix is what it takes; loss and gradient are the same but for the order of sums.

Heads over tokens only. A model that is sharded (FSDP2) has its head's weights only inside its own forward pass: with
`shard`, use `next_token`.
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from runnel import catalog
from runnel.head import TokenHead
from runnel.model import Model
from runnel.types import IGNORE, Batch

PAPERS: dict[str, str] = {}
SLICED = True  # the loss of a row is the sum over its slices
WHOLE = True  # the model must not be sharded

AT_ONCE = 1 << 22
"""Logits that are held at once: 16 MB in float32."""


def loss(model: Model, batch: Batch) -> Float[Tensor, ""]:
    """Mean nats per target. Raises ValueError when every target of the batch is IGNORE, or for other heads."""
    if batch.n_targets == 0:
        raise ValueError(f"batch must hold at least one target; all {batch.targets.numel()} are IGNORE")
    if not isinstance(model.head, TokenHead) or model.head.positional:
        found = catalog.page_name(model.head)
        raise ValueError(f"next_token_in_chunks needs a head over tokens, the same at all positions; got {found}")
    hidden, _ = model.features(batch.inputs, lineage=batch.lineage)
    counted = batch.targets != IGNORE
    size = max(1, AT_ONCE // model.config.outcomes)
    pairs = zip(hidden[counted].split(size), batch.targets[counted].split(size), strict=True)
    total = hidden.new_zeros(())
    for chunk, targets in pairs:
        total = total + checkpoint(_nats, model.head, chunk, targets, use_reentrant=False)
    return total / batch.n_targets  # eq. (1)


def _nats(head: TokenHead, hidden: Float[Tensor, "M D"], targets: Int[Tensor, "M"]) -> Float[Tensor, ""]:
    return -head.log_prob(head(hidden), targets).sum()
