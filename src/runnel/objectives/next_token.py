"""Next-token prediction: the mean negative log-likelihood of each token (or value) given those before it.

    loss = -(1 / n) sum over (b, t) with targets[b, t] != IGNORE of log p(targets[b, t] | inputs[b, : t + 1])      (1)

n is the number of targets that are not IGNORE. In a packed batch the condition stops at the start of the document
that position t belongs to. Logits are widened to float32 before the softmax, whatever the model computed in.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from runnel.model import Model
from runnel.types import Batch

PAPERS: dict[str, str] = {}
SLICED = True  # the loss of a row is the sum over its slices


def loss(model: Model, batch: Batch) -> Float[Tensor, ""]:
    """Mean nats per target. Raises ValueError when every target of the batch is IGNORE."""
    if batch.n_targets == 0:
        raise ValueError(f"batch must hold at least one target; all {batch.targets.numel()} are IGNORE")
    parameters, _ = model(batch.inputs, lineage=batch.lineage)
    return -model.head.log_prob(parameters, batch.targets).sum() / batch.n_targets  # eq. (1)
