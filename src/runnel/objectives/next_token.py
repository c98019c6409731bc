"""Next-token prediction: the mean negative log-likelihood of each token given the tokens before it.

    loss = -(1 / n) sum over (b, t) with targets[b, t] != IGNORE of log p(targets[b, t] | inputs[b, : t + 1])      (1)

n is the number of targets that are not IGNORE. In a packed batch the condition stops at the start of the document
that position t belongs to. Logits are widened to float32 before the softmax, whatever the model computed in.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from runnel.lineage import Lineage
from runnel.types import IGNORE, Batch

PAPERS: dict[str, str] = {}


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean nats per target, a scalar. Raises ValueError when every target of the batch is IGNORE."""
    if batch.n_targets == 0:
        raise ValueError(f"batch must hold at least one target; all {batch.targets.numel()} are IGNORE")
    lineage = None if batch.segments is None else Lineage.packed(batch.segments)
    logits, _ = model(batch.inputs, lineage=lineage)  # (B, T, V)
    return cross_entropy(logits.float().flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE)  # eq. (1)
